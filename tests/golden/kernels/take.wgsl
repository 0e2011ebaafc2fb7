// less_add_where_take_0
@group(0) @binding(0) var<storage, read_write> b0: array<i32>;
@group(0) @binding(1) var<storage, read_write> b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> b2: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 5) { return; }
  let v1 = p % 1;
  let v2 = p / 1;
  let v3 = v2;
  let v4 = v3 + v1;
  let v5 = b0[v3];
  let v6 = (v5 < (0));
  let v7 = (v5 + (10));
  let v8 = select(v5, v7, v6);
  let v9 = v8;
  let v10 = max(v9, (0));
  let v11 = min(v10, (9));
  let v12 = v1 + v11;
  let v13 = b1[v12];
  b2[v4] = v13;
}
