//! Arithmetic on two numbers.

use serde_json::{Number, Value};

use super::reply::Members;

/// The operations, as arguments name them.
pub(super) const OPERATIONS: [&str; 5] = ["add", "subtract", "multiply", "divide", "power"];

/// The result of the operation that `arguments` name, or a sentence saying why there is none.
pub(super) fn calculate(arguments: &Members) -> Result<Number, &'static str> {
    const UNKNOWN: &str =
        "the argument `operation` must be one of add, subtract, multiply, divide, power";
    let Some(Value::String(operation)) = arguments.get("operation") else {
        return Err(UNKNOWN);
    };
    let number = |name| arguments.get(name).and_then(Value::as_f64);
    let a = number("a").ok_or("the argument `a` must be a number")?;
    let b = number("b").ok_or("the argument `b` must be a number")?;
    let result = match operation.as_str() {
        "add" => a + b,
        "subtract" => a - b,
        "multiply" => a * b,
        "divide" if b == 0.0 => return Err("a number cannot be divided by zero"),
        "divide" => a / b,
        "power" if a == 0.0 && b < 0.0 => {
            return Err("zero cannot be raised to a negative power");
        }
        "power" => a.powf(b),
        _ => return Err(UNKNOWN),
    };
    if result.is_nan() {
        return Err("there is no real number that is the result");
    }
    number_of(result).ok_or("the result is too large to be represented")
}

/// The JSON number, written without a fraction where it has none: `5`, not `5.0`.
fn number_of(value: f64) -> Option<Number> {
    /// Up to here a double holds every integer exactly.
    const EXACT: f64 = 9_007_199_254_740_991.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(operation: &str, a: impl Into<Value>, b: impl Into<Value>) -> Result<String, String> {
        let arguments = json!({ "operation": operation, "a": a.into(), "b": b.into() });
        calculate(arguments.as_object().unwrap())
            .map(|number| number.to_string())
            .map_err(str::to_owned)
    }

    #[test]
    fn the_five_operations_work() {
        assert_eq!(of("add", 2, 3), Ok("5".to_owned()));
        assert_eq!(of("subtract", 2, 3), Ok("-1".to_owned()));
        assert_eq!(of("multiply", 1.5, 3), Ok("4.5".to_owned()));
        assert_eq!(of("divide", 1, 8), Ok("0.125".to_owned()));
        assert_eq!(of("power", 2, 10), Ok("1024".to_owned()));
        assert_eq!(of("power", 2, -1), Ok("0.5".to_owned()));
        assert_eq!(of("multiply", -1, 0), Ok("0".to_owned()));
        assert_eq!(of("add", 1e300, 0), Ok("1e+300".to_owned()));
    }

    #[test]
    fn what_has_no_result_is_said_in_words() {
        let why = |operation, a: f64, b: f64| of(operation, a, b).unwrap_err();
        assert_eq!(
            why("divide", 1.0, 0.0),
            "a number cannot be divided by zero"
        );
        assert_eq!(
            why("divide", 0.0, -0.0),
            "a number cannot be divided by zero"
        );
        assert_eq!(
            why("power", 0.0, -1.0),
            "zero cannot be raised to a negative power"
        );
        assert_eq!(
            why("power", -8.0, 1.0 / 3.0),
            "there is no real number that is the result"
        );
        for (operation, a, b) in [
            ("add", f64::MAX, f64::MAX),
            ("subtract", f64::MIN, f64::MAX),
            ("multiply", 1e200, 1e200),
            ("divide", 1e200, 1e-200),
            ("power", 10.0, 400.0),
        ] {
            assert_eq!(
                why(operation, a, b),
                "the result is too large to be represented"
            );
        }
    }

    #[test]
    fn an_unfit_argument_is_named() {
        assert_eq!(
            of("add", "2", 3),
            Err("the argument `a` must be a number".to_owned())
        );
        assert_eq!(
            of("add", 2, Value::Null),
            Err("the argument `b` must be a number".to_owned())
        );
        for operation in ["modulo", "", "Add"] {
            assert!(of(operation, 2, 3).unwrap_err().contains("`operation`"));
        }
        assert!(calculate(&Members::new()).is_err());
        for operation in OPERATIONS {
            assert!(of(operation, 2, 3).is_ok(), "{operation}");
        }
    }

    /// Every JSON value, and numbers of every size more often than the rest.
    fn argument() -> impl Strategy<Value = Value> {
        prop_oneof![
            6 => any::<f64>().prop_map(Value::from),
            2 => any::<i64>().prop_map(Value::from),
            2 => any::<u64>().prop_map(Value::from),
            2 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.5, f64::MAX, f64::MIN_POSITIVE])
                .prop_map(Value::from),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
            1 => any::<String>().prop_map(Value::from),
            1 => Just(json!([1])),
            1 => Just(json!({ "a": 1 })),
        ]
    }

    proptest! {
        #[test]
        fn every_call_ends_in_a_finite_number_or_a_sentence(
            operation in prop_oneof![prop::sample::select(OPERATIONS.to_vec()), Just("?")],
            a in argument(),
            b in argument(),
        ) {
            let arguments = json!({ "operation": operation, "a": a, "b": b });
            match calculate(arguments.as_object().unwrap()) {
                Ok(number) => prop_assert!(number.as_f64().unwrap().is_finite()),
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }

        #[test]
        fn addition_is_what_the_machine_adds(a in -1e15..1e15_f64, b in -1e15..1e15_f64) {
            let arguments = json!({ "operation": "add", "a": a, "b": b });
            let sum = calculate(arguments.as_object().unwrap()).unwrap().as_f64().unwrap();
            prop_assert!((sum - (a + b)).abs() <= f64::MIN_POSITIVE, "{sum}");
        }
    }
}
