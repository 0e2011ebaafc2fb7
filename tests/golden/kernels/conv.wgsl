// reshape_conv_0
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> b2: array<vec4<f32>>;
var<workgroup> shared_0: array<vec4<f32>, 256>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
  let lid = i32(index); let t = lid / 64;
  let column = i32(group.y * groups.x + group.x) * 64 + lid % 64;
  let v1 = min(column, 63) % 1;
  let v2 = min(column, 63) / 1;
  let v3 = v2 % 8;
  let v4 = v2 / 8;
  let v5 = v4;
  var v6 = 0.0f;
  var v7 = 0.0f;
  var v8 = 0.0f;
  var v9 = 0.0f;
  let v12 = v5 * 24 + v3 * 3;
  for (var turn = 0; turn < 7; turn++) {
    let v10 = turn * 4 + t;
    let v11 = (v10 < (27));
    let v13 = min(v10, (26));
    let v14 = (v13 / (9));
    let v15 = (v13 / (3));
    let v16 = (v15 % (3));
    let v17 = (v13 % (3));
    let v18 = v12 + v14 * 24 + v16 * 3 + v17 - 27;
    let v19 = v14 + v5;
    let v20 = ((0) < v19);
    let v21 = v14 + v5 - 1;
    let v22 = (v21 < (8));
    let v23 = (v20 & v22);
    let v24 = v3 + v16;
    let v25 = ((0) < v24);
    let v26 = (v23 & v25);
    let v27 = v3 + v16 - 1;
    let v28 = (v27 < (8));
    let v29 = (v26 & v28);
    let v30 = select(0.0, b0[select(0, v18, v29)], v29);
    let v31 = v1 + v13;
    let v32 = b1[v31];
    let v33 = (v30 * v32.x);
    let v34 = select(0.0f, v33, v11);
    v6 = v6 + v34;
    let v35 = (v30 * v32.y);
    let v36 = select(0.0f, v35, v11);
    v7 = v7 + v36;
    let v37 = (v30 * v32.z);
    let v38 = select(0.0f, v37, v11);
    v8 = v8 + v38;
    let v39 = (v30 * v32.w);
    let v40 = select(0.0f, v39, v11);
    v9 = v9 + v40;
  }
  shared_0[lid] = vec4<f32>(v6, v7, v8, v9);
  workgroupBarrier();
  let v41 = shared_0[lid % 64 + 0];
  let v42 = shared_0[lid % 64 + 64];
  let v43 = shared_0[lid % 64 + 128];
  let v44 = shared_0[lid % 64 + 192];
  var v45 = v41.x;
  v45 = v45 + v42.x;
  v45 = v45 + v43.x;
  v45 = v45 + v44.x;
  var v46 = v41.y;
  v46 = v46 + v42.y;
  v46 = v46 + v43.y;
  v46 = v46 + v44.y;
  var v47 = v41.z;
  v47 = v47 + v42.z;
  v47 = v47 + v43.z;
  v47 = v47 + v44.z;
  var v48 = v41.w;
  v48 = v48 + v42.w;
  v48 = v48 + v43.w;
  v48 = v48 + v44.w;
  let v49 = v5 * 8 + v3 + v1;
  if (t == 0 && column < 64) {
    b2[v49] = vec4<f32>(v45, v46, v47, v48);
  }
}
