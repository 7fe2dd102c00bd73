use super::*;
#[test]
fn smoke() {
    let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
    let b = a.clone();
    let mut x = vec![0f32; 37];
    let mut y = vec![0f32; 37];
    for set in InstructionSet::ALL {
        let Some(k) = Kernel::select_for(*set, DataType::F32, ReduceOp::Sum) else { continue };
        // SAFETY: test
        unsafe {
            k.run(
                &[a.as_ptr().cast(), b.as_ptr().cast()],
                &[x.as_mut_ptr().cast(), y.as_mut_ptr().cast()],
                37,
                None,
            )
        };
        assert!((0..37).all(|i| x[i] == 2.0 * i as f32 && y[i] == x[i]));
    }
}
