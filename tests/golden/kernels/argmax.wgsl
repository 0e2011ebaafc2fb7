// argmax_reshape_0
fn nf_zero() -> u32 { return select(0u, 1u, arrayLength(&b0) == 0u); }
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<i32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 6) { return; }
  let p0 = p;
  let v1 = p0;
  var v2 = (2147483647);
  var v6 = bitcast<f32>(nf_zero() | 0xff800000u);
  for (var v7 = 0; v7 < 10; v7++) {
    let v8 = v1 * 10 + v7;
    let v9 = b0[v8];
    v6 = nf_max_f32(v6, v9);
  }
  for (var v3 = 0; v3 < 10; v3++) {
    let v4 = v1 * 10 + v3;
    let v5 = b0[v4];
    let v10 = (v5 == v6);
    let v11 = nf_isnan(v5);
    let v12 = (v10 | v11);
    let v13 = v3;
    let v14 = select((10), v13, v12);
    v2 = min(v2, v14);
  }
  b1[v1] = v2;
}
