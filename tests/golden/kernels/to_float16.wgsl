// multiply_cast_0
fn nf_half(x: f32) -> u32 {
  let b = bitcast<u32>(x); let s = (b >> 16u) & 0x8000u; let m = b & 0x7fffffffu;
  if (m > 0x7f800000u) { return s | 0x7e00u; }
  if (m >= 0x477ff000u) { return s | 0x7c00u; }
  if (m >= 0x38800000u) { let r = m - 0x38000000u; return s | ((r + 0x0fffu + ((r >> 13u) & 1u)) >> 13u); }
  if (m < 0x33000000u) { return s; }
  let e = 126u - (m >> 23u); let f = (m & 0x7fffffu) | 0x800000u;
  let q = f >> e; let half = 1u << (e - 1u); let rest = f & ((1u << e) - 1u);
  return s | (q + select(0u, 1u, rest > half || (rest == half && (q & 1u) == 1u)));
}
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x) * 4;
  if (p >= 10) { return; }
  let p0 = min(p + 0, 9);
  let v1 = p0;
  let v2 = b0[v1];
  let v3 = (v2 * 0.5f);
  let p1 = min(p + 1, 9);
  let v4 = p1;
  let v5 = b0[v4];
  let v6 = (v5 * 0.5f);
  let p2 = min(p + 2, 9);
  let v7 = p2;
  let v8 = b0[v7];
  let v9 = (v8 * 0.5f);
  let p3 = min(p + 3, 9);
  let v10 = p3;
  let v11 = b0[v10];
  let v12 = (v11 * 0.5f);
  b1[u32(p) / 2u + 0u] = nf_half(v3) | (nf_half(v6) << 16u);
  b1[u32(p) / 2u + 1u] = nf_half(v9) | (nf_half(v12) << 16u);
}
