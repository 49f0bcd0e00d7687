//! The containers of a pod template and their probes, with the API's defaults filled in: what a budget is counted by.

use std::{fmt, time::Duration};

use super::json::{self, Json};

/// One container of a pod template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Unique among all containers of the pod.
    pub name: String,
    /// As written; empty where absent.
    pub image: String,
    /// Which list it is from.
    pub kind: ContainerKind,
    /// Decides whether the pod gets traffic.
    pub readiness: Option<Probe>,
    /// Restarts the container.
    pub liveness: Option<Probe>,
    /// Holds the other two back until it has passed once; restarts the container when it does not.
    pub startup: Option<Probe>,
}

/// Which list of the pod template a container is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// `containers`
    Regular,
    /// `initContainers`, runs to its end before the others start.
    Init,
    /// `initContainers` with `restartPolicy: Always`: starts before the others, runs beside them, is probed like them.
    Sidecar,
}

/// A probe, with the API's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `initialDelaySeconds`, 0 by default.
    pub initial_delay: Duration,
    /// `periodSeconds`, 10 by default.
    pub period: Duration,
    /// `timeoutSeconds`, 1 by default.
    pub timeout: Duration,
    /// 1 by default.
    pub success_threshold: u32,
    /// 3 by default.
    pub failure_threshold: u32,
    /// What is asked.
    pub handler: Handler,
}

impl Probe {
    /// How long it may fail from the start of the container until the kubelet acts on it.
    pub fn patience(&self) -> Duration {
        self.initial_delay.saturating_add(self.period.saturating_mul(self.failure_threshold))
    }
}

/// What a probe asks. Ports are as written: a number or the name of a declared port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Any status from 200 to 399 is success.
    HttpGet {
        /// Path and query.
        path: String,
        /// Number or name.
        port: String,
    },
    /// The gRPC health protocol.
    Grpc {
        /// Number.
        port: String,
    },
    /// A connection.
    TcpSocket {
        /// Number or name.
        port: String,
    },
    /// A command in the container.
    Exec,
}

/// The way a person would point at it: `:8000/v2/health/ready`, `grpc :9000`, `tcp :8500`, `exec`.
impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HttpGet { path, port } => write!(f, ":{port}{path}"),
            Self::Grpc { port } => write!(f, "grpc :{port}"),
            Self::TcpSocket { port } => write!(f, "tcp :{port}"),
            Self::Exec => f.write_str("exec"),
        }
    }
}

/// The containers that `template` (the value of `spec.template`) names, regular ones first. Ephemeral ones are not part
/// of a rollout. Members of another kind than the API's are read as absent.
pub fn containers(template: &Json) -> Vec<Container> {
    let regular = json::list_at(template, &["spec", "containers"]).iter();
    let init = json::list_at(template, &["spec", "initContainers"]).iter();
    regular
        .map(|node| container(node, ContainerKind::Regular))
        .chain(init.map(|node| {
            let sidecar = json::str_at(node, &["restartPolicy"]) == Some("Always");
            container(node, if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init })
        }))
        .collect()
}

fn container(node: &Json, kind: ContainerKind) -> Container {
    let text = |key| json::str_at(node, &[key]).unwrap_or_default().to_owned();
    let probe = |key| json::get(node, key).and_then(probe);
    Container {
        name: text("name"),
        image: text("image"),
        kind,
        readiness: probe("readinessProbe"),
        liveness: probe("livenessProbe"),
        startup: probe("startupProbe"),
    }
}

/// `None`: there is no handler, so nothing is probed.
fn probe(node: &Json) -> Option<Probe> {
    // 0 is "unset" to the API for all but the initial delay, whose default is 0.
    let number = |key, default: u32| match json::int_at(node, &[key]).map(u32::try_from) {
        Some(Ok(value)) if value > 0 => value,
        _ => default,
    };
    let seconds = |key, default| Duration::from_secs(number(key, default).into());
    Some(Probe {
        initial_delay: seconds("initialDelaySeconds", 0),
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        success_threshold: number("successThreshold", 1),
        failure_threshold: number("failureThreshold", 3),
        handler: handler(node)?,
    })
}

fn handler(probe: &Json) -> Option<Handler> {
    let port = |handler| match json::get(handler, "port") {
        Some(Json::Number(number)) => number.as_i64().unwrap_or_default().to_string(),
        Some(Json::String(name)) => name.to_string(),
        _ => String::new(),
    };
    if let Some(http) = json::get(probe, "httpGet") {
        let path = json::str_at(http, &["path"]).filter(|path| !path.is_empty()).unwrap_or("/");
        return Some(Handler::HttpGet { path: path.to_owned(), port: port(http) });
    }
    if let Some(grpc) = json::get(probe, "grpc") {
        return Some(Handler::Grpc { port: port(grpc) });
    }
    if let Some(tcp) = json::get(probe, "tcpSocket") {
        return Some(Handler::TcpSocket { port: port(tcp) });
    }
    json::get(probe, "exec").map(|_| Handler::Exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Json {
        Json::from_json_str(json).unwrap()
    }

    /// Rows: a probe, and `initial/period/timeout/success/failure patience handler`, or `-` for none.
    #[test]
    fn probes() {
        let rows = [
            (r#"{"httpGet":{"port":8000}}"#, "0/10/1/1/3 30 :8000/"),
            (
                r#"{"httpGet":{"path":"/v2/health/ready","port":"http"},"initialDelaySeconds":60,"periodSeconds":5,"timeoutSeconds":2,"successThreshold":2,"failureThreshold":4}"#,
                "60/5/2/2/4 80 :http/v2/health/ready",
            ),
            (r#"{"grpc":{"port":9000},"periodSeconds":0,"failureThreshold":0}"#, "0/10/1/1/3 30 grpc :9000"),
            (r#"{"tcpSocket":{"port":8500},"periodSeconds":-1}"#, "0/10/1/1/3 30 tcp :8500"),
            (r#"{"exec":{"command":["true"]},"periodSeconds":1}"#, "0/1/1/1/3 3 exec"),
            (
                r#"{"exec":{},"periodSeconds":4294967295,"failureThreshold":4294967295}"#,
                "0/4294967295/1/1/4294967295 18446744065119617025 exec",
            ),
            ("{}", "-"),
            ("null", "-"),
            ("[1]", "-"),
        ];
        for (node, want) in rows {
            let got = probe(&parse(node)).map_or("-".to_owned(), |probe| {
                let Probe { initial_delay, period, timeout, success_threshold, failure_threshold, ref handler } = probe;
                let [initial, period, timeout] = [initial_delay, period, timeout].map(|time| time.as_secs());
                let patience = probe.patience().as_secs();
                format!("{initial}/{period}/{timeout}/{success_threshold}/{failure_threshold} {patience} {handler}")
            });
            assert_eq!(got, want, "{node}");
        }
    }

    #[test]
    fn lists() {
        let template = parse(
            r#"{"spec":{
                "initContainers":[{"name":"fetch","image":"f:1"},{"name":"proxy","restartPolicy":"Always","readinessProbe":{"exec":{}}}],
                "containers":[{"name":"model","image":"m:1","startupProbe":{"exec":{}}}],
                "ephemeralContainers":[{"name":"debug"}]}}"#,
        );
        let seen: Vec<_> = containers(&template).into_iter().map(|one| (one.name, one.kind)).collect();
        let want =
            [("model", ContainerKind::Regular), ("fetch", ContainerKind::Init), ("proxy", ContainerKind::Sidecar)];
        assert_eq!(seen, want.map(|(name, kind)| (name.to_owned(), kind)));
        for nothing in ["null", "{}", r#"{"spec":{"containers":{}}}"#] {
            assert!(containers(&parse(nothing)).is_empty());
        }
        assert_eq!(containers(&parse(r#"{"spec":{"containers":[7]}}"#))[0].name, "");
    }
}
