// multiply_cast_0
fn nf_half(x: f32) -> u32 {
  let b = bitcast<u32>(x); let m = b & 0x7fffffffu;
  let normal = (m + 0xc8000fffu + ((m >> 13u) & 1u)) >> 13u;
  let small = bitcast<u32>(bitcast<f32>(m) + 0.5) - 0x3f000000u;
  let large = select(0x7c00u, 0x7e00u, m > 0x7f800000u);
  return ((b >> 16u) & 0x8000u) | select(select(normal, small, m < 0x38800000u), large, m >= 0x477ff000u);
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
