//! The services that `onceloop serve` has.

use std::collections::BTreeMap;
use std::fmt;

use onceloop::Builder;
use serde::{Deserialize, Serialize};

onceloop::service! {
    /// Arithmetic.
    pub mod calc {
        /// Adds two numbers.
        #[idempotent]
        fn add(a: i64, b: i64) -> i64;
        /// Divides; fails for a divisor of zero.
        #[idempotent]
        fn divide(dividend: i64, divisor: i64) -> Result<i64, Impossible>;
    }

    /// Sends back what it gets.
    pub mod echo {
        /// Returns the value as it came, byte for byte.
        #[idempotent]
        fn echo(value: Raw) -> Raw;
    }

    /// Counts words.
    pub mod word_count {
        /// Returns how often each word occurs in the text.
        #[idempotent]
        fn compute(text: &str) -> BTreeMap<String, u64>;
    }
}

/// What arithmetic cannot do.
#[derive(Debug, Serialize, Deserialize)]
#[expect(unreachable_pub, reason = "the methods that fail with it are public")]
pub enum Impossible {
    /// The divisor is zero.
    DivisionByZero,
    /// The result has no place in 64 bits.
    Overflow,
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Impossible::DivisionByZero => "division by zero",
            Impossible::Overflow => "the result has no place in 64 bits",
        })
    }
}

pub(crate) fn builder() -> Builder<()> {
    Builder::new()
        .service(calc::METHODS)
        .service(echo::METHODS)
        .service(word_count::METHODS)
        .method(calc::add, |(a, b), _| {
            a.checked_add(b).ok_or_else(|| Impossible::Overflow.to_string().into())
        })
        .method(calc::divide, |(dividend, divisor), _| match divisor {
            0 => Err(Impossible::DivisionByZero),
            _ => dividend.checked_div(divisor).ok_or(Impossible::Overflow),
        })
        .method(echo::echo, |(value,), _| Ok(value))
        .method(word_count::compute, |(text,), _| {
            let mut counts = BTreeMap::new();
            for word in text.split_whitespace() {
                *counts.entry(word.to_owned()).or_insert(0) += 1;
            }
            Ok(counts)
        })
}
