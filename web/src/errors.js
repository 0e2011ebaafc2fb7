/** A file is damaged, hostile or of an unknown version. */
export class FormatError extends Error {}
FormatError.prototype.name = "FormatError";

/** A device is missing, lost, full, or a limit is exceeded; or it was called wrongly. */
export class DeviceError extends Error {}
DeviceError.prototype.name = "DeviceError";

/**
 * What a message may say about a value of unknown type: short, whatever the value.
 * @param {unknown} value
 */
export const show = (value) =>
  typeof value === "object" && value ? (Array.isArray(value) ? "a list" : "an object")
  : typeof value === "string" ? JSON.stringify(value.slice(0, 40))
  : String(value);
