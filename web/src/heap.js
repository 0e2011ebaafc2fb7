// An allocator: which parts of a WebAssembly memory are in use.
import { bisect, roundUp } from "./program.js";

const ALIGN = 64;
const PAGE = 65536;

/** Best fit over holes that are sorted by address and never touch each other. */
export class Heap {
  /** @param {WebAssembly.Memory} memory @param {number} base bytes at the start that are not ours */
  constructor(memory, base) {
    this.memory = memory;
    this.base = base;
    /** Nothing above this address is in use. */
    this.top = base;
    /** @type {{at: number, size: number}[]} */
    this.holes = [];
    this.used = 0;
  }

  /** Address of `n` free bytes, or −1 if the memory cannot grow that far. @param {number} n */
  take(n) {
    const size = roundUp(n, ALIGN);
    let best = -1;
    for (let i = 0; i < this.holes.length; i++) {
      const hole = this.holes[i].size;
      if (hole >= size && (best < 0 || hole < this.holes[best].size)) best = i;
      if (hole === size) break;
    }
    let at = this.top;
    if (best >= 0) {
      const hole = this.holes[best];
      at = hole.at;
      hole.at += size;
      hole.size -= size;
      if (!hole.size) this.holes.splice(best, 1);
    } else {
      if (!this.reach(at + size)) return -1;
      this.top = at + size;
    }
    this.used += size;
    return at;
  }

  /** Make the memory reach `end`, with some to spare if there is. @param {number} end */
  reach(end) {
    const have = this.memory.buffer.byteLength / PAGE;
    const missing = Math.ceil(end / PAGE) - have;
    if (missing <= 0) return true;
    for (const pages of [Math.max(missing, Math.min(have >> 2, 1024)), missing])
      try {
        if (have + pages <= 65536) return this.memory.grow(pages), true;
      } catch {
        // not so much; try what is needed
      }
    return false;
  }

  /** @param {number} at @param {number} n as it was taken */
  give(at, n) {
    let size = roundUp(n, ALIGN);
    this.used -= size;
    let low = bisect(this.holes.length, (i) => this.holes[i].at < at);
    const after = this.holes[low];
    if (after && at + size === after.at) {
      size += after.size;
      this.holes.splice(low, 1);
    }
    const before = this.holes[low - 1];
    if (before && before.at + before.size === at) {
      at = before.at;
      size += before.size;
      this.holes.splice(--low, 1);
    }
    if (at + size === this.top) this.top = at;
    else this.holes.splice(low, 0, { at, size });
  }
}
