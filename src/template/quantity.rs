//! Quantities such as `500m`, `1.5Gi` and `129e6`, read, compared and written as the API server does it.
//!
//! The grammar is that of apimachinery's `resource.Quantity`, oddities included: a text that is nearly canonical is kept
//! as it was written (`+1`, `1.500`), `.` and `m` are zero, and a decimal beyond the largest unit loses it.
//! Amounts are exact: digits and a power of ten, never a float.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A fixed-point number with the unit it was written in. Equal and ordered by amount: `1` is `1000m`.
#[derive(Clone, Debug)]
pub struct Quantity {
    amount: Amount,
    format: Format,
    /// The text, where the API server keeps it.
    kept: Option<String>,
}

/// The text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing, or something between digits and suffix that belongs to neither.
    #[error("is no number with a unit")]
    Form,
    /// The unit is none of `n u m k M G T P E`, `Ki` to `Ei`, or an exponent such as `e3`.
    #[error("has an unknown unit")]
    Suffix,
}

/// Reads a quantity; white space around it does not count.
pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
    text.parse()
}

/// The form in which the API server gives `text` back; `None` where it is no quantity.
pub fn canonical(text: &str) -> Option<String> {
    Some(parse(text).ok()?.to_string())
}

impl Quantity {
    /// Rounded up to thousandths, which is all that the API keeps of requests and limits.
    pub fn rounded_to_milli(mut self) -> Self {
        // What fits 18 digits and needs no rounding is not touched, and so keeps its text.
        if self.amount.exponent < MILLI || self.kept.is_none() {
            self.amount = self.amount.rounded_up(MILLI);
            self.kept = None;
        }
        self
    }

    /// Less than nothing.
    pub fn is_negative(&self) -> bool {
        self.amount.negative && !self.is_zero()
    }

    /// Without a fraction.
    pub fn is_whole(&self) -> bool {
        self.is_zero() || self.amount.exponent >= 0
    }

    /// Neither more nor less than nothing.
    pub fn is_zero(&self) -> bool {
        self.amount.digits.is_empty()
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(QuantityError::Form);
        }
        let parts = Parts::of(text)?;
        let (format, exponent) = unit(parts.suffix).ok_or(QuantityError::Suffix)?;
        let fraction = parts.fraction.len() as i64;
        let digits = parts.whole.len().max(1) + parts.fraction.len();
        let written = Amount::new(parts.negative, [parts.whole, parts.fraction].concat().as_bytes(), -fraction);
        let (amount, is_short) = match format {
            Format::Binary => (written.times_two_to(exponent), is_short_binary(&parts, exponent)),
            _ => (written.shifted(exponent), digits <= 18 && exponent.saturating_sub(fraction) >= NANO),
        };
        if is_short {
            let kept = is_kept(&parts, format, exponent).then(|| text.to_owned());
            return Ok(Self { amount, format, kept });
        }
        if !parts.has_digits {
            return Err(QuantityError::Form);
        }
        let amount = amount.rounded_up(NANO);
        Ok(match format {
            Format::Binary if amount.cmp_abs(&Amount::of(i64::MAX)).is_gt() => {
                let capped = Amount { negative: amount.negative, ..Amount::of(i64::MAX) };
                Self { amount: capped, format, kept: None }
            }
            Format::Binary if amount.cmp_abs(&Amount::of(1)).is_lt() => {
                Self { amount, format: Format::Decimal, kept: None }
            }
            _ => Self { amount, format, kept: None },
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.kept {
            return f.write_str(text);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.amount.negative {
            f.write_str("-")?;
        }
        // Below 1Ki, or with a fraction, a binary unit would have to round.
        if self.format == Format::Binary
            && let Some(mut number) = self.amount.as_integer().filter(|number| *number >= 1024)
        {
            let mut unit = 0;
            while number % 1024 == 0 {
                number /= 1024;
                unit += 1;
            }
            return write!(f, "{number}{}", BINARY[unit]);
        }
        let Amount { digits, exponent, .. } = &self.amount;
        let zeros = exponent.rem_euclid(3);
        for digit in digits {
            write!(f, "{digit}")?;
        }
        f.write_str(&"00"[..usize::try_from(zeros).unwrap_or(0)])?;
        match exponent - zeros {
            0 => Ok(()),
            exponent if self.format == Format::Exponent => write!(f, "e{exponent}"),
            exponent => f.write_str(DECIMAL.iter().find(|unit| unit.1 == exponent).map_or("", |unit| unit.0)),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.amount.cmp(&other.amount)
    }
}

const NANO: i64 = -9;
const MILLI: i64 = -3;
const DECIMAL: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Each 1024 times the one before.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// What a suffix means: a power of ten, or for binary units a power of two.
fn unit(suffix: &str) -> Option<(Format, i64)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(unit, _)| *unit == suffix) {
        return Some((Format::Decimal, *exponent));
    }
    if let Some(exponent) = BINARY.iter().position(|unit| *unit == suffix) {
        return Some((Format::Binary, exponent as i64 * 10));
    }
    let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    // Go narrows it to 32 bits without looking.
    Some((Format::Exponent, i64::from(exponent as i32)))
}

/// A text in pieces; `whole` without leading zeros.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
    has_digits: bool,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, QuantityError> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, rest) = split(unsigned.trim_start_matches('0'), |c| c.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, |c| c.is_ascii_digit()),
            None => ("", rest),
        };
        let (_, exponent) = split(suffix, |c| "eEinumkKMGTP".contains(c));
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(QuantityError::Form);
        }
        let has_digits = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
        Ok(Self { negative, whole, fraction, suffix, has_digits })
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Whether the API server computes it in 64 bits; what it does not is rounded and written anew.
fn is_short_binary(parts: &Parts<'_>, exponent: i64) -> bool {
    let digits = parts.whole.len().max(1) as i64;
    parts.fraction.is_empty() && 15 - digits - exponent * 3 / 10 > 0
}

/// Whether the API server gives the text back as it is: canonical enough, by a quick look at the last digits.
fn is_kept(parts: &Parts<'_>, format: Format, exponent: i64) -> bool {
    let number = [if parts.whole.is_empty() { "0" } else { parts.whole }, parts.fraction].concat();
    match format {
        Format::Binary => number.parse::<i64>().is_ok_and(|number| number % 8 != 0),
        _ => (exponent - parts.fraction.len() as i64) % 3 == 0 && !number.ends_with("000") && !number.starts_with('0'),
    }
}

/// `digits × 10^exponent`; no zeros at either end, no digits at all for zero.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Amount {
    fn new(negative: bool, ascii: &[u8], exponent: i64) -> Self {
        Self { negative, digits: ascii.iter().map(|digit| digit - b'0').collect(), exponent }.trimmed()
    }

    fn of(number: i64) -> Self {
        Self::new(number < 0, number.unsigned_abs().to_string().as_bytes(), 0)
    }

    fn trimmed(mut self) -> Self {
        let zeros = self.digits.iter().rev().take_while(|digit| **digit == 0).count();
        self.digits.truncate(self.digits.len() - zeros);
        self.exponent += zeros as i64;
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        if self.digits.is_empty() {
            return Self { negative: false, digits: Vec::new(), exponent: 0 };
        }
        self
    }

    fn shifted(mut self, exponent: i64) -> Self {
        if !self.digits.is_empty() {
            self.exponent += exponent;
        }
        self
    }

    fn times_two_to(mut self, exponent: i64) -> Self {
        for _ in 0..exponent / 10 {
            let mut carry = 0;
            for digit in self.digits.iter_mut().rev() {
                let product = u32::from(*digit) * 1024 + carry;
                *digit = (product % 10) as u8;
                carry = product / 10;
            }
            while carry > 0 {
                self.digits.insert(0, (carry % 10) as u8);
                carry /= 10;
            }
        }
        self.trimmed()
    }

    /// The next multiple of `10^exponent` away from zero.
    fn rounded_up(mut self, exponent: i64) -> Self {
        if self.digits.is_empty() || self.exponent >= exponent {
            return self;
        }
        let dropped = usize::try_from(exponent - self.exponent).unwrap_or(usize::MAX);
        let kept = self.digits.len().saturating_sub(dropped);
        self.digits.truncate(kept);
        self.exponent = exponent;
        // What was cut off was not zero: amounts end in another digit.
        self.digits.insert(0, 0);
        for digit in self.digits.iter_mut().rev() {
            *digit = (*digit + 1) % 10;
            if *digit != 0 {
                break;
            }
        }
        self.trimmed()
    }

    /// Without its sign; `None` where it has a fraction or does not fit.
    fn as_integer(&self) -> Option<u64> {
        let factor = 10_u64.checked_pow(u32::try_from(self.exponent).ok()?)?;
        let digits = self.digits.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add((*digit).into()));
        digits?.checked_mul(factor)
    }

    fn cmp_abs(&self, other: &Self) -> Ordering {
        let magnitude = |amount: &Self| (!amount.digits.is_empty(), amount.exponent + amount.digits.len() as i64);
        // Without trailing zeros the longer one is the larger where all else is equal, as slices compare.
        magnitude(self).cmp(&magnitude(other)).then_with(|| self.digits.cmp(&other.digits))
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_abs(other),
            (true, true) => other.cmp_abs(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows: a text, what the API server gives back (`!`: it refuses), and what it keeps of it as a request or limit.
    /// Made with apimachinery 0.35.4.
    #[test]
    fn as_the_api_server_gives_it_back() {
        let rows = [
            ("0", "0", "0"),
            ("1", "1", "1"),
            ("1000m", "1", "1"),
            ("0.5", "500m", "500m"),
            ("1500m", "1500m", "1500m"),
            ("1.5", "1500m", "1500m"),
            ("1000", "1k", "1k"),
            ("1024", "1024", "1024"),
            ("1.5Gi", "1536Mi", "1536Mi"),
            ("1024Mi", "1Gi", "1Gi"),
            ("1025Mi", "1025Mi", "1025Mi"),
            ("0.5Ki", "512", "512"),
            ("0.1Gi", "107374182400m", "107374182400m"),
            ("0.0001Ki", "102400u", "103m"),
            ("129e6", "129e6", "129e6"),
            ("1E3", "1E3", "1E3"),
            ("1E", "1E", "1E"),
            ("1e", "!", "!"),
            ("100e1", "1e3", "1e3"),
            ("10e-10", "1e-9", "1e-3"),
            ("0.1n", "1n", "1m"),
            ("-0.1n", "-1n", "-1m"),
            ("1u", "1u", "1m"),
            ("1.0005", "1000500u", "1001m"),
            ("-1500m", "-1500m", "-1500m"),
            ("-0", "0", "0"),
            ("+1", "+1", "+1"),
            ("01", "01", "01"),
            ("1.500", "1.500", "1.500"),
            ("0.100", "100m", "100m"),
            ("8Ei", "9223372036854775807", "9223372036854775807"),
            ("-8Ei", "-9223372036854775807", "-9223372036854775807"),
            ("7Ei", "7Ei", "7Ei"),
            ("1000E", "1", "1"),
            ("123456789012345678901234567890", "123456789012345678901234567890", "123456789012345678901234567890"),
            (" 2 ", "2", "2"),
            (".", "0", "0"),
            ("m", "0", "0"),
            ("Pi", "!", "!"),
            ("", "!", "!"),
            ("lots", "!", "!"),
            ("1 Gi", "!", "!"),
            ("2GB", "!", "!"),
            ("2Gib", "!", "!"),
            ("1K", "!", "!"),
            ("1mi", "!", "!"),
            ("1e1.5", "!", "!"),
            ("1,5", "!", "!"),
            ("--1", "!", "!"),
        ];
        for (text, plain, limit) in rows {
            let quantity = parse(text);
            let shown = quantity.as_ref().map_or("!".to_owned(), ToString::to_string);
            assert_eq!(shown, plain, "{text:?}");
            assert_eq!(canonical(text).unwrap_or("!".to_owned()), plain, "{text:?}");
            let rounded = quantity.map_or("!".to_owned(), |quantity| quantity.rounded_to_milli().to_string());
            assert_eq!(rounded, limit, "{text:?}");
        }
    }

    #[test]
    fn amounts_are_compared_exactly() {
        let rising = [
            "-1e400000000",
            "-1Ki",
            "-1000",
            "-1m",
            "0",
            "1n",
            "1m",
            "999999999n",
            "1",
            "1.000000001",
            "1k",
            "1Ki",
            "1000000000000000000000000",
            "1000000000000000000000001",
            "1e400000000",
        ];
        let rising: Vec<_> = rising.iter().map(|text| parse(text).unwrap()).collect();
        assert!(rising.is_sorted_by(|a, b| a < b));
        for (a, b) in [("1", "1000m"), ("1.5Gi", "1536Mi"), ("1024", "1Ki"), ("0", "-0m"), ("1E3", "1k"), ("+1", "1")] {
            assert_eq!(parse(a).unwrap(), parse(b).unwrap(), "{a} {b}");
        }
        assert!(parse("0.0Gi").unwrap().is_zero());
    }

    proptest! {
        #[test]
        fn what_is_given_back_is_the_same_amount_and_stays(text in "[+-]?[0-9]{0,22}(\\.[0-9]{0,12})?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?") {
            if let Ok(quantity) = parse(&text) {
                let again = quantity.to_string();
                let reread = parse(&again).unwrap();
                prop_assert_eq!(reread.to_string(), again);
                prop_assert!(quantity.amount.exponent > 18 || reread == quantity);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "[-+.0-9eEinumkKMGTP ]{0,24}|\\PC*") {
            if let Ok(quantity) = parse(&text) {
                let _ = quantity.cmp(&quantity.clone().rounded_to_milli());
                let _ = quantity.to_string();
            }
        }
    }
}
