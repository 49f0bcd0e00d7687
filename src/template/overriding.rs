//! The override annotation: `surefoot.dev/override: "2026-11-22T17:16Z INC-1234"`.
//!
//! Who may set it is decided in the API server (a verb on `guards.surefoot.dev`); what it says is decided here, each time
//! it is read, because an expression in the API server has no clock.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Json, json, keys};

/// How far ahead an override may end.
pub const MOST_HOURS: i64 = 24;

/// An override that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// When it ends.
    pub until: Timestamp,
    /// Why, in somebody's words.
    pub reason: String,
}

/// The longest reason that surefoot itself writes: a ticket has room for the rest.
pub const LONGEST_REASON: usize = 200;

impl Override {
    /// One that lasts `span` from `now` on: what [`read`] takes, for those who do not want to write it by hand.
    ///
    /// # Errors
    /// It would count for nothing, or its reason is none: the words are for whoever gave them.
    pub fn lasting(span: Duration, reason: &str, now: Timestamp) -> Result<Self, Unfit> {
        let until = SignedDuration::try_from(span).ok().filter(|span| *span <= SignedDuration::from_hours(MOST_HOURS));
        let until = until.and_then(|span| now.checked_add(span).ok()).ok_or(Unfit::TooLong)?;
        // As it is written: in whole seconds.
        let until = Timestamp::from_second(until.as_second()).map_err(|_| Unfit::TooLong)?;
        if until <= now {
            return Err(Unfit::TooShort);
        }
        Ok(Self { until, reason: fit_reason(reason)? })
    }
}

/// A reason as it may be written: one line of some words.
///
/// # Errors
/// It is none; the words are for whoever gave it.
pub fn fit_reason(text: &str) -> Result<String, Unfit> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err(Unfit::NoReason),
        _ if text.chars().any(char::is_control) => Err(Unfit::Unprintable),
        count if count > LONGEST_REASON => Err(Unfit::LongReason),
        _ => Ok(text.to_owned()),
    }
}

impl fmt::Display for Override {
    /// The value of the annotation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.until, self.reason)
    }
}

/// Why no override is made of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It would end too late.
    #[error("an override lasts at most {MOST_HOURS} hours; whoever needs more sets it again, and says why again")]
    TooLong,
    /// It would be over at once.
    #[error("an override lasts at least a second")]
    TooShort,
    /// No words.
    #[error("the reason is empty: say in a few words why, a ticket is best")]
    NoReason,
    /// A line break, say.
    #[error("the reason holds a line break or another control character: one line, please")]
    Unprintable,
    /// More than [`LONGEST_REASON`].
    #[error("the reason is longer than {LONGEST_REASON} characters: name a ticket that has the rest")]
    LongReason,
}

/// Why an override counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Not a time, one space and a reason.
    #[error("it is no time, one space and a reason, such as \"2026-11-22T17:16Z INC-1234\"")]
    Malformed,
    /// It is over.
    #[error("it ended at {0}")]
    Ended(Timestamp),
    /// It ends too late.
    #[error("it ends at {0}, more than 24 hours ahead")]
    TooFar(Timestamp),
}

/// The override of a Deployment: `None` without the annotation.
pub fn of(deployment: &Json, now: Timestamp) -> Option<Result<Override, Void>> {
    json::str_at(deployment, &["metadata", "annotations", keys::OVERRIDE]).map(|text| read(text, now))
}

/// Reads the value of the annotation.
pub fn read(text: &str, now: Timestamp) -> Result<Override, Void> {
    let (time, reason) = text.split_once(' ').ok_or(Void::Malformed)?;
    let until = rfc3339(time).ok_or(Void::Malformed)?;
    if reason.is_empty() || reason.starts_with(' ') || reason.chars().any(char::is_control) {
        return Err(Void::Malformed);
    }
    if until <= now {
        return Err(Void::Ended(until));
    }
    match now.checked_add(SignedDuration::from_hours(MOST_HOURS)) {
        Ok(limit) if until > limit => Err(Void::TooFar(until)),
        _ => Ok(Override { until, reason: reason.to_owned() }),
    }
}

/// RFC 3339 with upper-case `T` and `Z`; seconds may be left out, as people do. jiff alone takes much more.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(11)?;
    let zone = rest.find(['Z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(zone)?;
    let shaped = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    let fraction_is_fine = match fraction {
        None => true,
        Some(digits) => {
            shaped(time, "00:00:00") && (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        }
    };
    let is_fine = shaped(date, "0000-00-00T")
        && (shaped(time, "00:00") || shaped(time, "00:00:00"))
        && fraction_is_fine
        && (zone == "Z" || shaped(zone, "+00:00") || shaped(zone, "-00:00"));
    is_fine.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let now: Timestamp = "2026-11-22T15:16:00.5Z".parse().unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let long = "x".repeat(LONGEST_REASON + 1);
        let rows = [
            (hours(2), "INC-1234", Ok("2026-11-22T17:16:00Z INC-1234")),
            (hours(24), " two  words ", Ok("2026-11-23T15:16:00Z two  words")),
            (Duration::from_millis(500), "x", Ok("2026-11-22T15:16:01Z x")),
            (Duration::from_millis(499), "x", Err(Unfit::TooShort)),
            (Duration::ZERO, "x", Err(Unfit::TooShort)),
            (hours(24) + Duration::from_nanos(1), "x", Err(Unfit::TooLong)),
            (Duration::MAX, "x", Err(Unfit::TooLong)),
            (hours(2), " ", Err(Unfit::NoReason)),
            (hours(2), "two\nlines", Err(Unfit::Unprintable)),
            (hours(2), &long[1..], Ok(&long[1..])),
            (hours(2), &long, Err(Unfit::LongReason)),
        ];
        for (span, reason, want) in rows {
            let made = Override::lasting(span, reason, now);
            match (&made, want) {
                (Ok(made), Ok(text)) => {
                    assert!(made.to_string().ends_with(text), "{made}");
                    assert_eq!(read(&made.to_string(), now).as_ref(), Ok(made));
                }
                (Err(unfit), Err(want)) => assert_eq!(*unfit, want),
                _ => panic!("{span:?} {reason:?}: {made:?}"),
            }
        }
    }

    #[test]
    fn the_form_is_a_time_one_space_and_a_reason() {
        let now: Timestamp = "2026-11-22T15:16:00Z".parse().unwrap();
        let rows = [
            ("2026-11-22T17:16Z INC-1234", Ok("INC-1234")),
            ("2026-11-22T17:16:00Z a reason of  words", Ok("a reason of  words")),
            ("2026-11-22T17:16:00.5Z x", Ok("x")),
            ("2026-11-22T18:16+01:00 x", Ok("x")),
            ("2026-11-23T15:16Z x", Ok("x")),
            ("2026-11-23T15:16:01Z x", Err("more than 24 hours ahead")),
            ("9999-12-30T22:00Z x", Err("more than 24 hours ahead")),
            ("2026-11-22T15:16Z x", Err("it ended at 2026-11-22T15:16:00Z")),
            ("2020-01-01T00:00Z x", Err("it ended")),
            ("2026-11-22T17:16Z", Err("it is no time")),
            ("2026-11-22T17:16Z ", Err("it is no time")),
            ("2026-11-22T17:16Z  x", Err("it is no time")),
            ("2026-11-22T17:16Z x\ny", Err("it is no time")),
            (" 2026-11-22T17:16Z x", Err("it is no time")),
            ("2026-11-22 17:16Z x", Err("it is no time")),
            ("2026-11-22t17:16z x", Err("it is no time")),
            ("2026-11-22T17:16 x", Err("it is no time")),
            ("2026-11-22T17:16[UTC] x", Err("it is no time")),
            ("2026-11-22T17Z x", Err("it is no time")),
            ("2026-11-22T17:16.5Z x", Err("it is no time")),
            ("2026-13-22T17:16Z x", Err("it is no time")),
            ("2026-11-22T25:16Z x", Err("it is no time")),
            ("2h x", Err("it is no time")),
            ("", Err("it is no time")),
            ("\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}é x", Err("it is no time")),
        ];
        for (text, wanted) in rows {
            match (read(text, now), wanted) {
                (Ok(found), Ok(reason)) => assert_eq!(found.reason, reason),
                (Err(void), Err(message)) => assert!(void.to_string().contains(message), "{text}: {void}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
