// multiply_exp_add_0
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_min_f32(a: f32, b: f32) -> f32 { return select(select(min(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
fn nf_f32_i32(x: f32) -> i32 { if (nf_isnan(x)) { return 0; } if (x >= 2147483648.0) { return 2147483647; } if (x <= -2147483648.0) { return -2147483647 - 1; } return i32(x); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@group(0) @binding(2) var<storage, read_write> b2: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 100) { return; }
  let p0 = p;
  let v1 = p0;
  let v2 = b0[v1];
  let v3 = (v2 * 2.0f);
  let v4 = nf_min_f32(v3, 89.0f);
  let v5 = nf_max_f32(v4, -104.0f);
  let v6 = (v5 * 1.4426950216293335f);
  let v7 = round(v6);
  let v8 = (v7 * 0.693359375f);
  let v9 = (v5 - v8);
  let v10 = (v7 * -0.00021219444170128554f);
  let v11 = (v9 - v10);
  let v12 = (v11 * v11);
  let v13 = (0.0013926250394433737f * v11);
  let v14 = (v13 + 0.00836323294788599f);
  let v15 = (v14 * v11);
  let v16 = (v15 + 0.04166655242443085f);
  let v17 = (v16 * v11);
  let v18 = (v17 + 0.16666576266288757f);
  let v19 = (v18 * v11);
  let v20 = (v19 + 0.5f);
  let v21 = (v12 * v20);
  let v22 = (v21 + v11);
  let v23 = (v22 + 1.0f);
  let v24 = (v7 * 0.5f);
  let v25 = floor(v24);
  let v26 = nf_f32_i32(v25);
  let v27 = (v26 + (127));
  let v28 = (v27 << (bitcast<u32>((23)) & 31u));
  let v29 = bitcast<f32>(v28);
  let v30 = (v23 * v29);
  let v31 = (v7 - v25);
  let v32 = nf_f32_i32(v31);
  let v33 = (v32 + (127));
  let v34 = (v33 << (bitcast<u32>((23)) & 31u));
  let v35 = bitcast<f32>(v34);
  let v36 = (v30 * v35);
  let v37 = b1[v1];
  let v38 = (v36 + v37);
  b2[v1] = v38;
}
