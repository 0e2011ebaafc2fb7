// reshape_conv_0
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@group(0) @binding(2) var<storage, read_write> b2: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let p = i32(id.y * groups.x * 64u + id.x);
  if (p >= 256) { return; }
  let p0 = p;
  let v1 = p0 % 4;
  let v2 = p0 / 4;
  let v3 = v2 % 8;
  let v4 = v2 / 8;
  let v5 = v4;
  var v6 = 0.0f;
  let v10 = v5 * 24 + v3 * 3;
  for (var v7 = 0; v7 < 3; v7++) {
    let v11 = v10 + v7 * 24;
    let v14 = v5 + v7;
    let v15 = ((0) < v14);
    let v16 = v5 + v7 - 1;
    let v17 = (v16 < (8));
    let v18 = (v15 & v17);
    let v26 = v7 * 36 + v1;
    for (var v8 = 0; v8 < 3; v8++) {
      let v12 = v11 + v8 * 3;
      let v19 = v3 + v8;
      let v20 = ((0) < v19);
      let v21 = (v18 & v20);
      let v22 = v3 + v8 - 1;
      let v23 = (v22 < (8));
      let v24 = (v21 & v23);
      let v27 = v26 + v8 * 12;
      for (var v9 = 0; v9 < 3; v9++) {
        let v13 = v12 + v9 - 27;
        let v25 = select(0.0, b0[select(0, v13, v24)], v24);
        let v28 = v27 + v9 * 4;
        let v29 = b1[v28];
        let v30 = (v25 * v29);
        v6 = v6 + v30;
      }
    }
  }
  let v31 = v5 * 32 + v3 * 4 + v1;
  b2[v31] = v6;
}
