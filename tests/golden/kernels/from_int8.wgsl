// cast_multiply_0
@group(0) @binding(0) var<storage, read_write> b0: array<u32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 10) { return; }
  let v1 = p;
  let v2 = ((bitcast<i32>(b0[(v1) >> 2u]) << (24u - 8u * u32((v1) & 3))) >> 24u);
  let v3 = f32(v2);
  let v4 = (v3 * 0.10000000149011612f);
  b1[v1] = v4;
}
