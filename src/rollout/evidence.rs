//! Evidence as a sentence. Record, Event, log, denial and `status` say the same thing because they all say this.

use std::{fmt, time::Duration};

use super::{
    record::{ByHand, Evidence, Revert, Signal, StallReason},
    time::between,
};

impl Evidence {
    /// `version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container "model", HTTP 503`
    pub fn sentence(&self, version: Option<&str>) -> String {
        format!("{} {}: {}", versioned(version), self.figures(), self.what())
    }

    /// `12 of 30 probes failed in 41 s, the budget is 10 (readiness of "model": HTTP 503)`
    pub fn note(&self) -> String {
        let figures = match self.signal {
            signal if signal.is_decided_by_deadline() => format!("not ready {}", self.after_start()),
            _ => format!("{} of {} probes failed {}", self.failures, self.attempts, self.in_time()),
        };
        let message = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("{figures} ({} of \"{}\"{message})", self.word(), self.container)
    }

    /// `failed 12 of 30 probes in 41 s, the budget is 10`
    fn figures(&self) -> String {
        match self.signal {
            signal if signal.is_decided_by_deadline() => format!("was not ready {}", self.after_start()),
            _ => format!("failed {} of {} probes {}", self.failures, self.attempts, self.in_time()),
        }
    }

    fn after_start(&self) -> String {
        let took = Took(between(self.since, self.until));
        format!("{took} after its start, when the progress deadline was over")
    }

    fn in_time(&self) -> String {
        let took = match between(self.since, self.until) {
            took if took.as_secs() == 0 => "at once".to_owned(),
            took => format!("in {}", Took(took)),
        };
        format!("{took}, the budget is {}", self.budget)
    }

    /// `readiness of container "model", HTTP 503`
    pub(super) fn what(&self) -> String {
        let message = if self.message.is_empty() { String::new() } else { format!(", {}", self.message) };
        format!("{} of container \"{}\"{message}", self.word(), self.container)
    }

    /// What failed, in the words of the sentences: `readiness`, `crash`, …
    pub fn word(&self) -> &'static str {
        match self.signal {
            Signal::Readiness | Signal::Deadline => "readiness",
            Signal::Liveness => "liveness",
            Signal::Startup => "startup",
            Signal::Crash => "crash",
            Signal::OutOfMemory => "out of memory kill",
            Signal::Image => "image",
            Signal::Configuration => "configuration",
            Signal::Init => "init",
        }
    }
}

impl Revert {
    /// The evidence as a sentence about the version that failed.
    pub fn sentence(&self) -> String {
        match &self.by_hand {
            Some(by_hand) => format!("{} was reverted {by_hand}", versioned(self.version.as_deref())),
            None => self.evidence.sentence(self.version.as_deref()),
        }
    }

    /// Quarantined, and applied again where nothing refused it: nothing new was held against it.
    fn came_back(&self) -> bool {
        self.evidence.until < self.at
    }

    /// What is said when it was made: `2.4.0 reverted to 2.3.1: 12 of 30 probes failed …`.
    pub fn note(&self) -> String {
        let bad = self.version.as_deref().unwrap_or("the new template");
        let why = match &self.by_hand {
            Some(by_hand) => format!(" {by_hand}"),
            None if self.came_back() => format!(" once more, for what it did before: {}", self.evidence.note()),
            None => format!(": {}", self.evidence.note()),
        };
        match &self.target {
            Some(good) => {
                format!("{bad} reverted to {}{why}", good.version.as_deref().unwrap_or("the last good template"))
            }
            None => format!("{bad} withdrawn, scaled to 0, for there is nothing to go back to{why}"),
        }
    }
}

impl fmt::Display for ByHand {
    /// `by hand by olga: INC-1234`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by hand by {}", self.user)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

impl StallReason {
    /// Why nothing is done, and what a person can do.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NothingSettled => "nothing to go back to: no version has settled",
            Self::HistoryLost => "nothing to go back to: the ReplicaSet of the last good version is gone",
            Self::SameTemplate => {
                "the failing template is the last good one: look at what it depends on (a ConfigMap, a Secret, a volume)"
            }
            Self::TooManyReverts => "three reverts in 24 hours: left alone until somebody looks",
            Self::RevertRefused => "the API server refused the revert",
            Self::Paused => "the Deployment is paused",
            Self::Observed => "only observed",
        }
    }
}

fn versioned(version: Option<&str>) -> String {
    version.map_or_else(|| "a version without a label".to_owned(), |version| format!("version {version}"))
}

/// `41 s`, `14 min`, `2 h`.
pub(super) struct Took(pub(super) Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{} h", seconds / 3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn sentences() {
        let evidence = |seconds: i64, signal, message: &str| Evidence {
            failures: 12,
            attempts: 30,
            budget: 10,
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::from_second(seconds).unwrap(),
            container: "model".into(),
            signal,
            message: message.into(),
            pods: Vec::new(),
            nodes: Vec::new(),
        };
        for (evidence, sentence) in [
            (
                evidence(41, Signal::Readiness, "HTTP 503"),
                "version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container \"model\", HTTP 503",
            ),
            (
                evidence(0, Signal::Crash, "exit code 1"),
                "version 2.4.0 failed 12 of 30 probes at once, the budget is 10: crash of container \"model\", exit code 1",
            ),
            (
                evidence(600, Signal::Deadline, ""),
                "version 2.4.0 was not ready 10 min after its start, when the progress deadline was over: readiness of \
                 container \"model\"",
            ),
        ] {
            assert_eq!(evidence.sentence(Some("2.4.0")), sentence);
        }
        let note = "12 of 30 probes failed in 41 s, the budget is 10 (readiness of \"model\": HTTP 503)";
        assert_eq!(evidence(41, Signal::Readiness, "HTTP 503").note(), note);
    }
}
