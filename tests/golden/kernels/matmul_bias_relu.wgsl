// einsum_add_maximum_0
fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
@group(0) @binding(0) var<storage, read_write> b0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> b2: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> b3: array<vec4<f32>>;
var<workgroup> shared_a: array<vec4<f32>, 288>;
var<workgroup> shared_b: array<vec4<f32>, 256>;
fn finish(batch: i32, row: i32, quad: i32, sum: vec4<f32>) {
  if (row >= 100 || quad >= 20) { return; }
  let v19 = b2[quad];
  let v20 = (sum.x + v19.x);
  let v21 = select(max(v20, 0.0f), v20, nf_isnan(v20));
  let v22 = (sum.y + v19.y);
  let v23 = select(max(v22, 0.0f), v22, nf_isnan(v22));
  let v24 = (sum.z + v19.z);
  let v25 = select(max(v24, 0.0f), v24, nf_isnan(v24));
  let v26 = (sum.w + v19.w);
  let v27 = select(max(v26, 0.0f), v26, nf_isnan(v26));
  let v28 = row * 20 + quad;
  b3[v28] = vec4<f32>(v21, v23, v25, v27);
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let lid = i32(index); let batch = i32(group.z);
  let x = lid % 8; let y = lid / 8;
  let row = i32(group.y) * 32; let quad = i32(group.x) * 8;
  let a_near = lid / 8; let a_step = lid % 8;
  let a_place = i32(group.y) * 8 + a_near;
  let b_near = lid % 8; let b_step = lid / 8;
  let b_place = i32(group.x) * 8 + b_near;
  let v1 = a_place * 64 + a_step;
  let v6 = b_step * 20 + b_place;
  var t0_0 = vec4<f32>();
  var t1_0 = vec4<f32>();
  var t2_0 = vec4<f32>();
  var t3_0 = vec4<f32>();
  var a_0: vec4<f32>;
  var a_1: vec4<f32>;
  var a_2: vec4<f32>;
  var a_3: vec4<f32>;
  var b_0: vec4<f32>;
  var b_1: vec4<f32>;
  var b_2: vec4<f32>;
  var b_3: vec4<f32>;
  let v2 = v1 + 0 * 8;
  let v3 = v1 + 0 * 8 + 16;
  let v4 = v1 + 0 * 8 + 32;
  let v5 = v1 + 0 * 8 + 48;
  a_0 = b0[v2];
  a_1 = b0[v3];
  a_2 = b0[v4];
  a_3 = b0[v5];
  let v7 = v6 + 0 * 640;
  let v8 = v6 + 0 * 640 + 160;
  let v9 = v6 + 0 * 640 + 320;
  let v10 = v6 + 0 * 640 + 480;
  b_0 = b1[v7];
  b_1 = b1[v8];
  b_2 = b1[v9];
  b_3 = b1[v10];
  for (var strip = 0; strip < 2; strip++) {
    workgroupBarrier();
    shared_a[(a_step * 4 + 0) * 9 + a_near + 0] = vec4<f32>(a_0.x, a_1.x, a_2.x, a_3.x);
    shared_a[(a_step * 4 + 1) * 9 + a_near + 0] = vec4<f32>(a_0.y, a_1.y, a_2.y, a_3.y);
    shared_a[(a_step * 4 + 2) * 9 + a_near + 0] = vec4<f32>(a_0.z, a_1.z, a_2.z, a_3.z);
    shared_a[(a_step * 4 + 3) * 9 + a_near + 0] = vec4<f32>(a_0.w, a_1.w, a_2.w, a_3.w);
    shared_b[(b_step + 0) * 8 + b_near] = vec4<f32>(b_0.x, b_0.y, b_0.z, b_0.w);
    shared_b[(b_step + 8) * 8 + b_near] = vec4<f32>(b_1.x, b_1.y, b_1.z, b_1.w);
    shared_b[(b_step + 16) * 8 + b_near] = vec4<f32>(b_2.x, b_2.y, b_2.z, b_2.w);
    shared_b[(b_step + 24) * 8 + b_near] = vec4<f32>(b_3.x, b_3.y, b_3.z, b_3.w);
    workgroupBarrier();
    let next = min(strip + 1, 1);
    let v11 = v1 + next * 8;
    let v12 = v1 + next * 8 + 16;
    let v13 = v1 + next * 8 + 32;
    let v14 = v1 + next * 8 + 48;
    a_0 = b0[v11];
    a_1 = b0[v12];
    a_2 = b0[v13];
    a_3 = b0[v14];
    let v15 = v6 + next * 640;
    let v16 = v6 + next * 640 + 160;
    let v17 = v6 + next * 640 + 320;
    let v18 = v6 + next * 640 + 480;
    b_0 = b1[v15];
    b_1 = b1[v16];
    b_2 = b1[v17];
    b_3 = b1[v18];
    for (var s = 0; s < 32; s += 4) {
      let near = y + s * 9; let far = x + s * 8;
      {
        let p0 = shared_a[near + 0];
        let q0 = shared_b[far + 0];
        t0_0 = fma(vec4(p0.x), q0, t0_0);
        t1_0 = fma(vec4(p0.y), q0, t1_0);
        t2_0 = fma(vec4(p0.z), q0, t2_0);
        t3_0 = fma(vec4(p0.w), q0, t3_0);
      }
      {
        let p0 = shared_a[near + 9];
        let q0 = shared_b[far + 8];
        t0_0 = fma(vec4(p0.x), q0, t0_0);
        t1_0 = fma(vec4(p0.y), q0, t1_0);
        t2_0 = fma(vec4(p0.z), q0, t2_0);
        t3_0 = fma(vec4(p0.w), q0, t3_0);
      }
      {
        let p0 = shared_a[near + 18];
        let q0 = shared_b[far + 16];
        t0_0 = fma(vec4(p0.x), q0, t0_0);
        t1_0 = fma(vec4(p0.y), q0, t1_0);
        t2_0 = fma(vec4(p0.z), q0, t2_0);
        t3_0 = fma(vec4(p0.w), q0, t3_0);
      }
      {
        let p0 = shared_a[near + 27];
        let q0 = shared_b[far + 24];
        t0_0 = fma(vec4(p0.x), q0, t0_0);
        t1_0 = fma(vec4(p0.y), q0, t1_0);
        t2_0 = fma(vec4(p0.z), q0, t2_0);
        t3_0 = fma(vec4(p0.w), q0, t3_0);
      }
    }
  }
  finish(batch, row + (y + 0) * 4 + 0, quad + x + 0, t0_0);
  finish(batch, row + (y + 0) * 4 + 1, quad + x + 0, t1_0);
  finish(batch, row + (y + 0) * 4 + 2, quad + x + 0, t2_0);
  finish(batch, row + (y + 0) * 4 + 3, quad + x + 0, t3_0);
}
