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
@group(0) @binding(1) var<storage, read_write> b1: array<vec2<u32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 3) { return; }
  let v1 = p;
  let v2 = v1 * 4;
  let v3 = b0[v2];
  let v4 = (v3 * 0.5f);
  let v5 = v1 * 4 + 1;
  let v6 = b0[v5];
  let v7 = (v6 * 0.5f);
  let v8 = v1 * 4 + 2;
  let v9 = min(v8, (9));
  let v10 = b0[v9];
  let v11 = (v10 * 0.5f);
  let v12 = v1 * 4 + 3;
  let v13 = min(v12, (9));
  let v14 = b0[v13];
  let v15 = (v14 * 0.5f);
  b1[p] = vec2<u32>(nf_half(v4) | (nf_half(v7) << 16u), nf_half(v11) | (nf_half(v15) << 16u));
}
