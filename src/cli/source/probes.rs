//! What the API server refuses of the probes of a container, as `validateProbe` of Kubernetes has it.

use super::{decode::fault, validity::is_word};
use crate::{
    admission::Finding,
    template::{Json, json},
};

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const GRACE: &str = "terminationGracePeriodSeconds";

/// Everything of this kind that is wrong with the container at the pointer `at`.
pub(super) fn faults(container: &Json, at: &str) -> Vec<Finding> {
    let probes = PROBES.into_iter().filter_map(|kind| Some((kind, present(container, kind)?)));
    probes.flat_map(|(kind, probe)| Probe { kind, probe, at: format!("{at}/{kind}") }.faults()).collect()
}

/// The same of an init container: while it is waited for nobody probes it, unless it stays.
pub(super) fn faults_of_init(container: &Json, at: &str) -> Vec<Finding> {
    if json::str_at(container, &["restartPolicy"]) == Some("Always") {
        return faults(container, at);
    }
    let found = PROBES.into_iter().chain(["lifecycle"]).filter(|key| present(container, key).is_some());
    let refused = |key| {
        let message = format!("an init container has no {key}, unless its restartPolicy is Always");
        fault(&format!("{at}/{key}"), message, "remove it, or set restartPolicy: Always if it is a sidecar")
    };
    found.map(refused).collect()
}

struct Probe<'a> {
    kind: &'static str,
    probe: &'a Json,
    at: String,
}

impl Probe<'_> {
    fn faults(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.handler().into_iter().collect();
        for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            if let Some(value) = self.number(key).filter(|value| *value < 0) {
                found.push(self.wrong(key, format!("{key} is {value}; it cannot be negative"), ""));
            }
        }
        // The API server takes 0 for what is not set.
        if let Some(value) = self.number("successThreshold").filter(|value| *value > 1 && self.kind != PROBES[1]) {
            let message = format!("successThreshold is {value}; of a {} it can only be 1", self.kind);
            found.push(self.wrong("successThreshold", message, "remove it"));
        }
        match self.number(GRACE) {
            Some(_) if self.kind == PROBES[1] => {
                let message = format!("a {} ends no container, so it has no {GRACE}", self.kind);
                found.push(self.wrong(GRACE, message, "remove it"));
            }
            Some(value) if value <= 0 => {
                found.push(self.wrong(GRACE, format!("{GRACE} is {value}; it must be positive"), ""));
            }
            _ => {}
        }
        found
    }

    /// There is one, and it can be asked.
    fn handler(&self) -> Option<Finding> {
        let handlers: Vec<_> = HANDLERS.into_iter().filter_map(|key| Some((key, present(self.probe, key)?))).collect();
        match handlers.as_slice() {
            [] => Some(self.wrong("", "the probe has no handler, so it asks nothing".to_owned(), EXAMPLE)),
            [(key, handler)] => self.asks(key, handler),
            [(one, _), (other, _), ..] => {
                let message = format!("a probe asks in one way, and this one has both {one} and {other}");
                Some(self.wrong(other, message, "keep one of them"))
            }
        }
    }

    fn asks(&self, key: &str, handler: &Json) -> Option<Finding> {
        if key == "exec" {
            return json::list_at(handler, &["command"])
                .is_empty()
                .then(|| self.wrong("exec/command", "exec has no command".to_owned(), "command: [cat, /tmp/ready]"));
        }
        let scheme = json::str_at(handler, &["scheme"]).filter(|scheme| !["", "HTTP", "HTTPS"].contains(scheme));
        if let Some(scheme) = scheme {
            let message = format!("there is no scheme `{scheme}`; there is HTTP and HTTPS");
            return Some(self.wrong(&format!("{key}/scheme"), message, ""));
        }
        let message = match present(handler, "port") {
            None => format!("{key} has no port"),
            Some(port) if is_port(port) => return None,
            Some(port) => format!("{port} is no port"),
        };
        let fix = "a number from 1 to 65535, or the name of a port of this container";
        Some(self.wrong(&format!("{key}/port"), message, fix))
    }

    fn number(&self, key: &str) -> Option<i64> {
        json::int_at(self.probe, &[key])
    }

    fn wrong(&self, below: &str, message: String, fix: &str) -> Finding {
        let path = if below.is_empty() { self.at.clone() } else { format!("{}/{below}", self.at) };
        fault(&path, message, fix)
    }
}

const EXAMPLE: &str = "httpGet: {path: /ready, port: 8080}";

/// A number, or an IANA service name.
fn is_port(port: &Json) -> bool {
    match json::as_str(port) {
        Some(name) => {
            let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
            name.len() <= 15 && has_letter && is_word(name) && !name.contains("--")
        }
        None => json::int_at(port, &[]).is_some_and(|port| (1..=65535).contains(&port)),
    }
}

/// To the API server null is absent.
fn present<'a>(owner: &'a Json, key: &str) -> Option<&'a Json> {
    json::get(owner, key).filter(|value| **value != Json::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_refuses() {
        let rows = [
            (r#"{"readinessProbe": {"httpGet": {"port": "http"}, "successThreshold": 2, "exec": null}}"#, None),
            (r#"{"livenessProbe": {"grpc": {"port": 65535}, "terminationGracePeriodSeconds": 1}}"#, None),
            (
                r#"{"startupProbe": {"exec": {"command": ["true"]}, "successThreshold": 0}, "livenessProbe": null}"#,
                None,
            ),
            (r#"{"readinessProbe": {}}"#, Some("/readinessProbe")),
            (r#"{"livenessProbe": {"httpGet": {"port": 1}, "exec": {}}}"#, Some("/livenessProbe/httpGet")),
            (r#"{"livenessProbe": {"httpGet": {}}}"#, Some("/livenessProbe/httpGet/port")),
            (r#"{"livenessProbe": {"tcpSocket": {"port": 65536}}}"#, Some("/livenessProbe/tcpSocket/port")),
            (r#"{"livenessProbe": {"tcpSocket": {"port": "8080"}}}"#, Some("/livenessProbe/tcpSocket/port")),
            (r#"{"livenessProbe": {"tcpSocket": {"port": "a--b"}}}"#, Some("/livenessProbe/tcpSocket/port")),
            (
                r#"{"livenessProbe": {"tcpSocket": {"port": "sixteen-letters-"}}}"#,
                Some("/livenessProbe/tcpSocket/port"),
            ),
            (r#"{"livenessProbe": {"httpGet": {"port": 1, "scheme": "http"}}}"#, Some("/livenessProbe/httpGet/scheme")),
            (r#"{"livenessProbe": {"exec": {}}}"#, Some("/livenessProbe/exec/command")),
            (r#"{"livenessProbe": {"grpc": {"port": 1}, "periodSeconds": -1}}"#, Some("/livenessProbe/periodSeconds")),
            (
                r#"{"startupProbe": {"grpc": {"port": 1}, "successThreshold": 2}}"#,
                Some("/startupProbe/successThreshold"),
            ),
            (
                r#"{"readinessProbe": {"grpc": {"port": 1}, "terminationGracePeriodSeconds": 1}}"#,
                Some("/readinessProbe/terminationGracePeriodSeconds"),
            ),
            (
                r#"{"livenessProbe": {"grpc": {"port": 1}, "terminationGracePeriodSeconds": 0}}"#,
                Some("/livenessProbe/terminationGracePeriodSeconds"),
            ),
        ];
        let paths = |found: Vec<Finding>| found.into_iter().map(|fault| fault.path).collect::<Vec<_>>();
        for (container, path) in rows {
            let found = paths(faults(&Json::from_json_str(container).unwrap(), ""));
            assert_eq!(found, path.into_iter().collect::<Vec<_>>(), "{container}");
        }
        let init = r#"{"lifecycle": {}, "readinessProbe": {"grpc": {"port": 1}}}"#;
        let found = paths(faults_of_init(&Json::from_json_str(init).unwrap(), ""));
        assert_eq!(found, ["/readinessProbe", "/lifecycle"]);
        let stays = init.replacen('{', r#"{"restartPolicy": "Always", "#, 1);
        assert_eq!(paths(faults_of_init(&Json::from_json_str(&stays).unwrap(), "")), [""; 0]);
    }
}
