//! Arguments that several commands take.

use std::time::Duration;

/// `--dry-run`, as kubectl has it; what can be known without the server is little here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DryRun {
    /// Do it.
    #[default]
    None,
    /// Ask the API server whether it would, and change nothing.
    Server,
}

/// `deploy/churn`, as kubectl takes it, or `churn`.
pub(super) fn deployment_name(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("deploy", text));
    match kind {
        "deploy" | "deployment" | "deployments" | "deployment.apps" | "deployments.apps" if !name.is_empty() => {
            Ok(name.to_owned())
        }
        _ => Err("give deploy/NAME: surefoot watches Deployments".to_owned()),
    }
}

/// `60s`, `15m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| "give a duration such as 60s, 15m or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_durations_as_kubectl_takes_them() {
        for (text, name) in [
            ("deploy/churn", Some("churn")),
            ("deployment/churn", Some("churn")),
            ("deployments.apps/churn", Some("churn")),
            ("churn", Some("churn")),
            ("pod/churn", None),
            ("deploy/", None),
        ] {
            assert_eq!(deployment_name(text).ok().as_deref(), name, "{text}");
        }
        for (text, seconds) in
            [("60s", Some(60)), ("15m", Some(900)), ("1h30m", Some(5400)), ("-1s", None), ("x", None)]
        {
            assert_eq!(duration(text).ok().map(|duration| duration.as_secs()), seconds, "{text}");
        }
    }
}
