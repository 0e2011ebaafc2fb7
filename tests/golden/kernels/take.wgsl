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
  let v4 = b0[v3];
  let v5 = (v4 < (0));
  let v6 = (v4 + (10));
  let v7 = select(v4, v6, v5);
  let v8 = v7;
  let v9 = max(v8, (0));
  let v10 = min(v9, (9));
  let v11 = v1 + v10;
  let v12 = b1[v11];
  let v13 = v3 + v1;
  b2[v13] = vec4<f32>(v12.x, v12.y, v12.z, v12.w);
}
