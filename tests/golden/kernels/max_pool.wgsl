// permute_max_0
fn nf_zero() -> u32 { return select(0u, 1u, arrayLength(&b0) == 0u); }
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 48) { return; }
  let p0 = p;
  let v1 = p0 % 4;
  let v2 = p0 / 4;
  let v3 = v2 % 4;
  let v4 = v2 / 4;
  let v5 = v4;
  var v6 = bitcast<f32>(nf_zero() | 0xff800000u);
  let v9 = v3 * 48 + v1 * 6 + v5;
  for (var v7 = 0; v7 < 2; v7++) {
    let v10 = v9 + v7 * 24;
    for (var v8 = 0; v8 < 2; v8++) {
      let v11 = v10 + v8 * 3;
      let v12 = b0[v11];
      v6 = nf_max_f32(v6, v12);
    }
  }
  let v13 = v3 * 12 + v1 * 3 + v5;
  b1[v13] = v6;
}
