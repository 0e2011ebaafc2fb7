// einsum_add_maximum_0
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }
@group(0) @binding(0) var<storage, read_write> b0: array<f32>;
@group(0) @binding(1) var<storage, read_write> b1: array<f32>;
@group(0) @binding(2) var<storage, read_write> b2: array<f32>;
@group(0) @binding(3) var<storage, read_write> b3: array<f32>;
var<workgroup> left: array<f32, 1024>;
var<workgroup> right: array<f32, 1024>;
fn nf_a(batch: i32, place: i32, step: i32) -> f32 {
  if (place >= 100 || step >= 64) { return 0.0; }
  let v1 = place * 64 + step;
  let v2 = b0[v1];
  return v2;
}
fn nf_b(batch: i32, place: i32, step: i32) -> f32 {
  if (place >= 80 || step >= 64) { return 0.0; }
  let v3 = step * 80 + place;
  let v4 = b1[v3];
  return v4;
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let lid = i32(index);
  let x = lid % 16; let y = lid / 16;
  let column = i32(group.x) * 64; let row = i32(group.y) * 64; let batch = i32(group.z);
  var t00 = 0.0;
  var t01 = 0.0;
  var t02 = 0.0;
  var t03 = 0.0;
  var t10 = 0.0;
  var t11 = 0.0;
  var t12 = 0.0;
  var t13 = 0.0;
  var t20 = 0.0;
  var t21 = 0.0;
  var t22 = 0.0;
  var t23 = 0.0;
  var t30 = 0.0;
  var t31 = 0.0;
  var t32 = 0.0;
  var t33 = 0.0;
  for (var k = 0; k < 64; k += 16) {
    left[((lid + 0) % 16) * 64 + (lid + 0) / 16] = nf_a(batch, row + (lid + 0) / 16, k + (lid + 0) % 16);
    left[((lid + 256) % 16) * 64 + (lid + 256) / 16] = nf_a(batch, row + (lid + 256) / 16, k + (lid + 256) % 16);
    left[((lid + 512) % 16) * 64 + (lid + 512) / 16] = nf_a(batch, row + (lid + 512) / 16, k + (lid + 512) % 16);
    left[((lid + 768) % 16) * 64 + (lid + 768) / 16] = nf_a(batch, row + (lid + 768) / 16, k + (lid + 768) % 16);
    right[((lid + 0) / 64) * 64 + (lid + 0) % 64] = nf_b(batch, column + (lid + 0) % 64, k + (lid + 0) / 64);
    right[((lid + 256) / 64) * 64 + (lid + 256) % 64] = nf_b(batch, column + (lid + 256) % 64, k + (lid + 256) / 64);
    right[((lid + 512) / 64) * 64 + (lid + 512) % 64] = nf_b(batch, column + (lid + 512) % 64, k + (lid + 512) / 64);
    right[((lid + 768) / 64) * 64 + (lid + 768) % 64] = nf_b(batch, column + (lid + 768) % 64, k + (lid + 768) / 64);
    workgroupBarrier();
    for (var s = 0; s < 16; s++) {
      let a0 = left[s * 64 + y * 4 + 0];
      let a1 = left[s * 64 + y * 4 + 1];
      let a2 = left[s * 64 + y * 4 + 2];
      let a3 = left[s * 64 + y * 4 + 3];
      let b0 = right[s * 64 + x * 4 + 0];
      let b1 = right[s * 64 + x * 4 + 1];
      let b2 = right[s * 64 + x * 4 + 2];
      let b3 = right[s * 64 + x * 4 + 3];
      t00 = t00 + a0 * b0;
      t01 = t01 + a0 * b1;
      t02 = t02 + a0 * b2;
      t03 = t03 + a0 * b3;
      t10 = t10 + a1 * b0;
      t11 = t11 + a1 * b1;
      t12 = t12 + a1 * b2;
      t13 = t13 + a1 * b3;
      t20 = t20 + a2 * b0;
      t21 = t21 + a2 * b1;
      t22 = t22 + a2 * b2;
      t23 = t23 + a2 * b3;
      t30 = t30 + a3 * b0;
      t31 = t31 + a3 * b1;
      t32 = t32 + a3 * b2;
      t33 = t33 + a3 * b3;
    }
    workgroupBarrier();
  }
  let v5 = row + y * 4 + 0;
  let v6 = column + x * 4 + 0;
  if (v5 < 100 && v6 < 80) {
    let v7 = v5 * 80 + v6;
    let v8 = b2[v6];
    let v9 = (t00 + v8);
    let v10 = nf_max_f32(v9, 0.0f);
    b3[v7] = v10;
  }
  let v11 = row + y * 4 + 0;
  let v12 = column + x * 4 + 1;
  if (v11 < 100 && v12 < 80) {
    let v13 = v11 * 80 + v12;
    let v14 = b2[v12];
    let v15 = (t01 + v14);
    let v16 = nf_max_f32(v15, 0.0f);
    b3[v13] = v16;
  }
  let v17 = row + y * 4 + 0;
  let v18 = column + x * 4 + 2;
  if (v17 < 100 && v18 < 80) {
    let v19 = v17 * 80 + v18;
    let v20 = b2[v18];
    let v21 = (t02 + v20);
    let v22 = nf_max_f32(v21, 0.0f);
    b3[v19] = v22;
  }
  let v23 = row + y * 4 + 0;
  let v24 = column + x * 4 + 3;
  if (v23 < 100 && v24 < 80) {
    let v25 = v23 * 80 + v24;
    let v26 = b2[v24];
    let v27 = (t03 + v26);
    let v28 = nf_max_f32(v27, 0.0f);
    b3[v25] = v28;
  }
  let v29 = row + y * 4 + 1;
  let v30 = column + x * 4 + 0;
  if (v29 < 100 && v30 < 80) {
    let v31 = v29 * 80 + v30;
    let v32 = b2[v30];
    let v33 = (t10 + v32);
    let v34 = nf_max_f32(v33, 0.0f);
    b3[v31] = v34;
  }
  let v35 = row + y * 4 + 1;
  let v36 = column + x * 4 + 1;
  if (v35 < 100 && v36 < 80) {
    let v37 = v35 * 80 + v36;
    let v38 = b2[v36];
    let v39 = (t11 + v38);
    let v40 = nf_max_f32(v39, 0.0f);
    b3[v37] = v40;
  }
  let v41 = row + y * 4 + 1;
  let v42 = column + x * 4 + 2;
  if (v41 < 100 && v42 < 80) {
    let v43 = v41 * 80 + v42;
    let v44 = b2[v42];
    let v45 = (t12 + v44);
    let v46 = nf_max_f32(v45, 0.0f);
    b3[v43] = v46;
  }
  let v47 = row + y * 4 + 1;
  let v48 = column + x * 4 + 3;
  if (v47 < 100 && v48 < 80) {
    let v49 = v47 * 80 + v48;
    let v50 = b2[v48];
    let v51 = (t13 + v50);
    let v52 = nf_max_f32(v51, 0.0f);
    b3[v49] = v52;
  }
  let v53 = row + y * 4 + 2;
  let v54 = column + x * 4 + 0;
  if (v53 < 100 && v54 < 80) {
    let v55 = v53 * 80 + v54;
    let v56 = b2[v54];
    let v57 = (t20 + v56);
    let v58 = nf_max_f32(v57, 0.0f);
    b3[v55] = v58;
  }
  let v59 = row + y * 4 + 2;
  let v60 = column + x * 4 + 1;
  if (v59 < 100 && v60 < 80) {
    let v61 = v59 * 80 + v60;
    let v62 = b2[v60];
    let v63 = (t21 + v62);
    let v64 = nf_max_f32(v63, 0.0f);
    b3[v61] = v64;
  }
  let v65 = row + y * 4 + 2;
  let v66 = column + x * 4 + 2;
  if (v65 < 100 && v66 < 80) {
    let v67 = v65 * 80 + v66;
    let v68 = b2[v66];
    let v69 = (t22 + v68);
    let v70 = nf_max_f32(v69, 0.0f);
    b3[v67] = v70;
  }
  let v71 = row + y * 4 + 2;
  let v72 = column + x * 4 + 3;
  if (v71 < 100 && v72 < 80) {
    let v73 = v71 * 80 + v72;
    let v74 = b2[v72];
    let v75 = (t23 + v74);
    let v76 = nf_max_f32(v75, 0.0f);
    b3[v73] = v76;
  }
  let v77 = row + y * 4 + 3;
  let v78 = column + x * 4 + 0;
  if (v77 < 100 && v78 < 80) {
    let v79 = v77 * 80 + v78;
    let v80 = b2[v78];
    let v81 = (t30 + v80);
    let v82 = nf_max_f32(v81, 0.0f);
    b3[v79] = v82;
  }
  let v83 = row + y * 4 + 3;
  let v84 = column + x * 4 + 1;
  if (v83 < 100 && v84 < 80) {
    let v85 = v83 * 80 + v84;
    let v86 = b2[v84];
    let v87 = (t31 + v86);
    let v88 = nf_max_f32(v87, 0.0f);
    b3[v85] = v88;
  }
  let v89 = row + y * 4 + 3;
  let v90 = column + x * 4 + 2;
  if (v89 < 100 && v90 < 80) {
    let v91 = v89 * 80 + v90;
    let v92 = b2[v90];
    let v93 = (t32 + v92);
    let v94 = nf_max_f32(v93, 0.0f);
    b3[v91] = v94;
  }
  let v95 = row + y * 4 + 3;
  let v96 = column + x * 4 + 3;
  if (v95 < 100 && v96 < 80) {
    let v97 = v95 * 80 + v96;
    let v98 = b2[v96];
    let v99 = (t33 + v98);
    let v100 = nf_max_f32(v99, 0.0f);
    b3[v97] = v100;
  }
}
