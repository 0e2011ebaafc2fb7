export { bridge } from "./bridge.js";
export { DeviceError, FormatError } from "./errors.js";
export { load, openDevice } from "./model.js";
export { decode, verify } from "./program.js";
