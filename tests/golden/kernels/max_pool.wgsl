// reshape_max_0
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 48) { return; }
  let v1 = p % 3;
  let v2 = p / 3;
  let v3 = v2 % 4;
  let v4 = v2 / 4;
  let v5 = v4;
  let v6 = v5 * 48 + v3 * 6 + v1;
  let v7 = b0[v6];
  let v8 = v5 * 48 + v3 * 6 + v1 + 3;
  let v9 = b0[v8];
  let v10 = nf_max_f32(v7, v9);
  let v11 = v5 * 48 + v3 * 6 + v1 + 24;
  let v12 = b0[v11];
  let v13 = v5 * 48 + v3 * 6 + v1 + 27;
  let v14 = b0[v13];
  let v15 = nf_max_f32(v12, v14);
  let v16 = nf_max_f32(v10, v15);
  let v17 = v5 * 12 + v3 * 3 + v1;
  b1[v17] = v16;
}
