use super::*;

const LOSS: Check = Check { name: "loss", tolerance: 1e-4 };

fn ready(values: &[f64]) -> Ready {
    Ready::default().with("loss", values.to_vec())
}

#[test]
fn results_that_agree_pass() {
    let (name, checked) = compare(&LOSS, &ready(&[1.0, 2.0]), &ready(&[1.0, 2.0001])).unwrap();
    assert_eq!((name.as_str(), checked.tolerance), ("loss", 1e-4));
    assert!((checked.difference - 5e-5).abs() < 1e-8, "{checked:?}");
}

#[test]
fn results_that_differ_are_refused_with_both_values_and_the_tolerance() {
    let error = compare(&LOSS, &ready(&[1.0]), &ready(&[1.001])).unwrap_err().to_string();
    for part in ["loss is 1.000000 on our side", "1.001000 on the other", "1e-4", "timed"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    for other in [f64::NAN, f64::INFINITY] {
        assert!(compare(&LOSS, &ready(&[1.0]), &ready(&[other])).is_err(), "{other}");
    }
    let error = compare(&LOSS, &ready(&[1.0]), &ready(&[1.0, 2.0])).unwrap_err().to_string();
    assert!(error.contains("1 values on our side and 2 on the other"), "{error}");
    let error = compare(&LOSS, &ready(&[1.0]), &Ready::default()).unwrap_err().to_string();
    assert_eq!(error, "the other side does not tell \"loss\", which is compared");
}

#[test]
fn times_and_rates_have_three_digits() {
    assert_eq!(Unit::Step.tell(2.913), "2.91 s");
    assert_eq!(Unit::Step.tell(0.0613), "61.3 ms");
    assert_eq!(Unit::Step.tell(0.9996), "1.00 s");
    assert_eq!(Unit::Pass.tell(123.4), "123 s");
    assert_eq!(Unit::Images.tell(0.002), "500 images/s");
    assert_eq!(three_digits(99.97), "100");
    assert_eq!(three_digits(9.996), "10.0");
}
