// pad_0
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 63) { return; }
  let v1 = p % 7;
  let v2 = p / 7;
  let v3 = v2;
  let v4 = v1 * 7 + v3 - 8;
  let v5 = ((0) < v3);
  let v6 = v3 - 1;
  let v7 = (v6 < (7));
  let v8 = (v5 & v7);
  let v9 = ((0) < v1);
  let v10 = (v8 & v9);
  let v11 = v1 - 1;
  let v12 = (v11 < (5));
  let v13 = (v10 & v12);
  let v14 = select(0.0, b0[select(0, v4, v13)], v13);
  let v15 = v3 * 7 + v1;
  b1[v15] = v14;
}
