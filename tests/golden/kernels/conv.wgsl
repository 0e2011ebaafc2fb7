// reshape_conv_0
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> b2: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 64) { return; }
  let v1 = p % 1;
  let v2 = p / 1;
  let v3 = v2 % 8;
  let v4 = v2 / 8;
  let v5 = v4;
  var v6 = 0.0f;
  var v7 = 0.0f;
  var v8 = 0.0f;
  var v9 = 0.0f;
  let v12 = v5 * 24 + v3 * 3;
  for (var v10 = 0; v10 < 3; v10++) {
    let v13 = v12 + v10 * 24;
    let v15 = v5 + v10;
    let v16 = ((0) < v15);
    let v17 = v5 + v10 - 1;
    let v18 = (v17 < (8));
    let v19 = (v16 & v18);
    let v27 = v10 * 9 + v1;
    for (var v11 = 0; v11 < 3; v11++) {
      let v14 = v13 + v11 * 3 - 27;
      let v20 = v3 + v11;
      let v21 = ((0) < v20);
      let v22 = (v19 & v21);
      let v23 = v3 + v11 - 1;
      let v24 = (v23 < (8));
      let v25 = (v22 & v24);
      let v26 = select(0.0, b0[select(0, v14, v25)], v25);
      let v28 = v27 + v11 * 3;
      let v29 = b1[v28];
      let v30 = (v26 * v29.x);
      let v31 = v13 + v11 * 3 - 26;
      let v32 = select(0.0, b0[select(0, v31, v25)], v25);
      let v33 = v27 + v11 * 3 + 1;
      let v34 = b1[v33];
      let v35 = (v32 * v34.x);
      let v36 = (v30 + v35);
      let v37 = v13 + v11 * 3 - 25;
      let v38 = select(0.0, b0[select(0, v37, v25)], v25);
      let v39 = v27 + v11 * 3 + 2;
      let v40 = b1[v39];
      let v41 = (v38 * v40.x);
      let v42 = (v36 + v41);
      let v43 = (v26 * v29.y);
      let v44 = (v32 * v34.y);
      let v45 = (v43 + v44);
      let v46 = (v38 * v40.y);
      let v47 = (v45 + v46);
      let v48 = (v26 * v29.z);
      let v49 = (v32 * v34.z);
      let v50 = (v48 + v49);
      let v51 = (v38 * v40.z);
      let v52 = (v50 + v51);
      let v53 = (v26 * v29.w);
      let v54 = (v32 * v34.w);
      let v55 = (v53 + v54);
      let v56 = (v38 * v40.w);
      let v57 = (v55 + v56);
      v6 = v6 + v42;
      v7 = v7 + v47;
      v8 = v8 + v52;
      v9 = v9 + v57;
    }
  }
  let v58 = v5 * 8 + v3 + v1;
  b2[v58] = vec4<f32>(v6, v7, v8, v9);
}
