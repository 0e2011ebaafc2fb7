// max_abs_less_where_subtract_exp_sum_divide_0
fn nf_zero() -> u32 { return select(0u, 1u, arrayLength(&b0) == 0u); }
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_min_f32(a: f32, b: f32) -> f32 { return select(select(min(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
fn nf_div_f32(a: f32, b: f32) -> f32 { let s = select(1.0, 0.25, abs(b) > 4.0e37); return a * s / (b * s); }
fn nf_f32_i32(x: f32) -> i32 { if (nf_isnan(x)) { return 0; } if (x >= 2147483648.0) { return 2147483647; } if (x <= -2147483648.0) { return -2147483647 - 1; } return i32(x); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
var<workgroup> shared_f32: array<f32, 128>;
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
  let lid = i32(index);
  let row = i32(group.y * groups.x + group.x);
  if (row >= 32) { return; }
  let v1 = row;
  var v5 = bitcast<f32>(nf_zero() | 0xff800000u);
  for (var v6 = lid; v6 < 100; v6 += 128) {
    let v7 = v6;
    let v8 = v1 * 100 + v7;
    let v9 = b0[v8];
    v5 = nf_max_f32(v5, v9);
  }
  workgroupBarrier();
  shared_f32[lid] = v5;
  for (var step = 64; step > 0; step = step / 2) {
    workgroupBarrier();
    if (lid < step) { shared_f32[lid] = nf_max_f32(shared_f32[lid], shared_f32[lid + step]); }
  }
  workgroupBarrier();
  v5 = shared_f32[0];
  let v10 = abs(v5);
  let v11 = (v10 < bitcast<f32>(nf_zero() | 0x7f800000u));
  let v12 = select(0.0f, v5, v11);
  var v47 = 0.0f;
  for (var v48 = lid; v48 < 100; v48 += 128) {
    let v49 = v48;
    let v50 = v1 * 100 + v49;
    let v51 = b0[v50];
    let v52 = (v51 - v12);
    let v53 = nf_min_f32(v52, 89.0f);
    let v54 = nf_max_f32(v53, -104.0f);
    let v55 = (v54 * 1.4426950216293335f);
    let v56 = round(v55);
    let v57 = (v56 * 0.693359375f);
    let v58 = (v54 - v57);
    let v59 = (v56 * -0.00021219444170128554f);
    let v60 = (v58 - v59);
    let v61 = (v60 * v60);
    let v62 = (0.0013926250394433737f * v60);
    let v63 = (v62 + 0.00836323294788599f);
    let v64 = (v63 * v60);
    let v65 = (v64 + 0.04166655242443085f);
    let v66 = (v65 * v60);
    let v67 = (v66 + 0.16666576266288757f);
    let v68 = (v67 * v60);
    let v69 = (v68 + 0.5f);
    let v70 = (v61 * v69);
    let v71 = (v70 + v60);
    let v72 = (v71 + 1.0f);
    let v73 = (v56 * 0.5f);
    let v74 = floor(v73);
    let v75 = nf_f32_i32(v74);
    let v76 = (v75 + (127));
    let v77 = (v76 << (bitcast<u32>((23)) & 31u));
    let v78 = bitcast<f32>(v77);
    let v79 = (v72 * v78);
    let v80 = (v56 - v74);
    let v81 = nf_f32_i32(v80);
    let v82 = (v81 + (127));
    let v83 = (v82 << (bitcast<u32>((23)) & 31u));
    let v84 = bitcast<f32>(v83);
    let v85 = (v79 * v84);
    v47 = v47 + v85;
  }
  workgroupBarrier();
  shared_f32[lid] = v47;
  for (var step = 64; step > 0; step = step / 2) {
    workgroupBarrier();
    if (lid < step) { shared_f32[lid] = shared_f32[lid] + shared_f32[lid + step]; }
  }
  workgroupBarrier();
  v47 = shared_f32[0];
  for (var at = lid; at < 100; at += 128) {
    let v2 = at;
    let v3 = v1 * 100 + v2;
    let v4 = b0[v3];
    let v13 = (v4 - v12);
    let v14 = nf_min_f32(v13, 89.0f);
    let v15 = nf_max_f32(v14, -104.0f);
    let v16 = (v15 * 1.4426950216293335f);
    let v17 = round(v16);
    let v18 = (v17 * 0.693359375f);
    let v19 = (v15 - v18);
    let v20 = (v17 * -0.00021219444170128554f);
    let v21 = (v19 - v20);
    let v22 = (v21 * v21);
    let v23 = (0.0013926250394433737f * v21);
    let v24 = (v23 + 0.00836323294788599f);
    let v25 = (v24 * v21);
    let v26 = (v25 + 0.04166655242443085f);
    let v27 = (v26 * v21);
    let v28 = (v27 + 0.16666576266288757f);
    let v29 = (v28 * v21);
    let v30 = (v29 + 0.5f);
    let v31 = (v22 * v30);
    let v32 = (v31 + v21);
    let v33 = (v32 + 1.0f);
    let v34 = (v17 * 0.5f);
    let v35 = floor(v34);
    let v36 = nf_f32_i32(v35);
    let v37 = (v36 + (127));
    let v38 = (v37 << (bitcast<u32>((23)) & 31u));
    let v39 = bitcast<f32>(v38);
    let v40 = (v33 * v39);
    let v41 = (v17 - v35);
    let v42 = nf_f32_i32(v41);
    let v43 = (v42 + (127));
    let v44 = (v43 << (bitcast<u32>((23)) & 31u));
    let v45 = bitcast<f32>(v44);
    let v46 = (v40 * v45);
    let v86 = nf_div_f32(v46, v47);
    b1[v3] = v86;
  }
}
