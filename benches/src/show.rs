//! Numbers as people read them.

/// Returns a count with a space between its thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with about three digits that tell something: `123 456`, `12.3`, `0.0456`.
pub(crate) fn digits(number: f64) -> String {
    match number.abs() {
        100.0.. => rounded(number),
        10.0.. => format!("{number:.1}"),
        1.0.. => format!("{number:.2}"),
        0.1.. => format!("{number:.3}"),
        0.0 => "0".to_owned(),
        _ => format!("{number:.4}"),
    }
}

/// Returns a number without decimals, with a space between its thousands.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
pub(crate) fn rounded(number: f64) -> String {
    let sign = if number <= -0.5 { "-" } else { "" };
    format!("{sign}{}", grouped(number.abs().round() as u64))
}

/// Returns how many there are in a second, in the unit that suits it: `18.38 M`, `249 k`, `9.1 k`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        999_500.0.. => format!("{:.2} M", per_second / 1e6),
        9_950.0.. => format!("{:.0} k", per_second / 1e3),
        999.5.. => format!("{:.1} k", per_second / 1e3),
        _ => rounded(per_second),
    }
}

/// Returns a latency in the unit that suits it: `94.7 µs`, `107 µs`, `2.3 ms`, `1.1 s`.
pub(crate) fn latency(us: f64) -> String {
    let (number, unit) = match us {
        999_500.0.. => (us / 1e6, "s"),
        999.5.. => (us / 1e3, "ms"),
        _ => (us, "\u{b5}s"),
    };
    let decimals = usize::from(number < 99.95);
    format!("{number:.decimals$} {unit}")
}

/// Returns a number as short as a scale wants it: `200 k`, `1.5 M`, `0.05`.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        1e6.. => format!("{} M", number / 1e6),
        1e4.. => format!("{} k", number / 1e3),
        1e3.. => digits(number),
        // Whatever binary fractions make of 0.3 and its like is rounded off.
        _ => format!("{}", (number * 1e9).round() / 1e9),
    }
}

/// Returns a size in the unit that suits it: `16 B`, `4 KiB`, `1 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        mib if mib >= 1 << 20 && mib.is_multiple_of(1 << 20) => format!("{} MiB", mib >> 20),
        kib if kib >= 1 << 10 && kib.is_multiple_of(1 << 10) => format!("{} KiB", kib >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn no_more_digits_than_tell_something() {
        for (number, text) in [
            (123_456.7, "123 457"),
            (-1234.5, "-1 235"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (0.0395, "0.0395"),
            (0.0, "0"),
        ] {
            assert_eq!(digits(number), text);
        }
    }

    #[test]
    fn a_rate_is_in_the_unit_that_suits_it() {
        for (number, text) in [
            (18_384_000.0, "18.38 M"),
            (999_600.0, "1.00 M"),
            (248_960.0, "249 k"),
            (9_960.0, "10 k"),
            (9_140.0, "9.1 k"),
            (999.4, "999"),
        ] {
            assert_eq!(rate(number), text);
        }
    }

    #[test]
    fn a_latency_is_in_the_unit_that_suits_it() {
        for (us, text) in [
            (7.84, "7.8 \u{b5}s"),
            (99.96, "100 \u{b5}s"),
            (999.6, "1.0 ms"),
            (102_400.0, "102 ms"),
            (999_600.0, "1.0 s"),
        ] {
            assert_eq!(latency(us), text);
        }
    }

    #[test]
    fn a_scale_has_short_labels() {
        for (number, text) in
            [(2.5e6, "2.5 M"), (2e5, "200 k"), (5e3, "5 000"), (0.1 + 0.2, "0.3"), (0.0, "0")]
        {
            assert_eq!(short(number), text);
        }
        assert_eq!(
            (bytes(16), bytes(4096), bytes(1 << 20)),
            ("16 B".into(), "4 KiB".into(), "1 MiB".into())
        );
    }
}
