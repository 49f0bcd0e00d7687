//! Input documents of policies that nobody would think of: Deployments with odd values in every field that the shipped
//! policies read, and the peers, history and parameters beside them. For comparisons, so what they mean does not matter.

use proptest::{
    collection::vec,
    option::weighted,
    prelude::{BoxedStrategy, Just, Strategy},
    prop_oneof,
    sample::select,
    strategy::Union,
};
use serde_json::{Map, Value, json};

type Values = BoxedStrategy<Value>;
type Member = BoxedStrategy<Option<(String, Value)>>;

/// `{"request": …, "context": …, "parameters": {POLICY: …}}`.
pub(crate) fn input() -> Values {
    let request = (deployment(), prop_oneof![Just(None), deployment().prop_map(Some)], 0..3_u8).prop_map(
        |(object, other, unchanged)| {
            let old = if unchanged == 0 { Some(object.clone()) } else { other };
            let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
            let meta = &object["metadata"];
            json!({
                "uid": "u", "operation": operation, "name": meta["name"].as_str().unwrap_or("churn"), "namespace": "shop", "dryRun": false,
                "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "userInfo": {"username": "jane"}, "object": object, "oldObject": old,
            })
        },
    );
    (request, context(), parameters())
        .prop_map(
            |(request, context, parameters)| json!({"request": request, "context": context, "parameters": parameters}),
        )
        .boxed()
}

/// As they pass the loader: each of its kind.
fn parameters() -> Values {
    let globs = || of([json!([]), json!(["m*"]), json!(["model", "{a,b}"]), json!(["[!x]*"]), json!(["?idecar"])]);
    let amounts = || object([exact("cpu", 0.6, quantity()), exact("memory", 0.6, quantity())]);
    let required = of([json!([]), json!(["requests.cpu"]), json!(["limits.memory", "requests.ephemeral-storage"])]);
    let only = |name: &'static str, values: Values| object([exact(name, 0.3, values)]);
    object([
        exact("images", 1.0, only("ignoreContainers", globs())),
        exact("probes", 1.0, only("ignoreContainers", globs())),
        exact(
            "resources",
            1.0,
            object([
                exact("require", 0.3, required),
                exact("requests", 0.4, amounts()),
                exact("limits", 0.4, amounts()),
                exact("ignoreContainers", 0.2, globs()),
            ]),
        ),
        exact("canary-cap", 1.0, object([exact("percent", 0.4, number(1..101)), exact("minimum", 0.3, number(1..4))])),
        exact(
            "isolation",
            1.0,
            only("denyByDefault", of([json!([]), json!(["Egress"]), json!(["Ingress", "Egress"])])),
        ),
    ])
}

fn context() -> Values {
    let peer = object([
        member(
            "metadata",
            1.0,
            object([
                member("name", 0.95, of(["churn", "churn-canary", "fraud", "a"])),
                member("namespace", 0.95, of(["shop", "shop", "shop", "other"])),
                member("labels", 0.95, labels()),
            ]),
        ),
        member("spec", 0.97, object([member("replicas", 0.9, replicas())])),
    ]);
    let rollout = object([
        member("digest", 1.0, of(["v1:a", "v1:b"])),
        member("version", 0.8, version()),
        member("since", 1.0, of(["2026-11-22T10:00:00Z"])),
        member("failing", 0.5, of([true, false])),
    ]);
    let template = object([member("digest", 1.0, of(["v1:a", "v1:b"])), member("settled", 0.9, of([true, false]))]);
    let history = object([member("rollout", 0.7, rollout), member("template", 0.9, template)]);
    let policy = object([
        member("podSelector", 0.9, of([json!({}), json!({"matchLabels": {"a": "b"}}), json!({"matchLabels": {}})])),
        member("policyTypes", 0.7, of([json!(["Ingress"]), json!(["Egress", "Ingress"]), json!([])])),
        member("ingress", 0.3, of([json!([]), json!([{}])])),
        member("egress", 0.3, of([json!([]), json!([{}])])),
    ]);
    let isolation = object([
        member(
            "resourceQuotas",
            0.9,
            list(object([member("spec", 0.9, of([json!({}), json!({"hard": {"cpu": 1}})]))]), 2),
        ),
        member("limitRanges", 0.9, list(object([member("spec", 0.9, of([json!({}), json!({"limits": [{}]})]))]), 2)),
        member("networkPolicies", 0.9, list(object([member("spec", 0.95, policy)]), 3)),
    ]);
    object([
        member("via", 1.0, of(["deployment", "deployment", "scale"])),
        member("peers", 0.9, list(peer, 5)),
        member("history", 0.8, history),
        member("namespace", 0.8, object([member("labels", 0.8, labels())])),
        member("isolation", 0.9, isolation),
    ])
}

fn deployment() -> Values {
    let rolling = object([member("maxSurge", 0.8, share()), member("maxUnavailable", 0.8, share())]);
    let strategy = object([
        member("type", 0.9, of(["RollingUpdate", "RollingUpdate", "Recreate"])),
        member("rollingUpdate", 0.9, rolling),
    ]);
    let selector = object([
        member("matchLabels", 0.8, labels()),
        member("matchExpressions", 0.2, list(object([member("key", 0.9, of(["a", "app.kubernetes.io/version"]))]), 2)),
    ]);
    let seconds = || of([0, 1, 5, 9, 10, 599, 600, 601, 3600, 2_147_483_647]);
    object([
        member("apiVersion", 1.0, of(["apps/v1"])),
        member("kind", 1.0, of(["Deployment"])),
        member("metadata", 1.0, metadata()),
        member(
            "spec",
            0.98,
            object([
                member("replicas", 0.9, replicas()),
                member("paused", 0.1, of([true, false])),
                member("minReadySeconds", 0.5, seconds()),
                member("progressDeadlineSeconds", 0.6, seconds()),
                member("revisionHistoryLimit", 0.5, number(0..12)),
                member("selector", 0.9, selector),
                member("strategy", 0.8, strategy),
                member("template", 0.98, template()),
            ]),
        ),
    ])
}

fn metadata() -> Values {
    object([
        member("name", 0.98, of(["churn", "churn-canary", "fraud"])),
        member("namespace", 0.9, of(["shop"])),
        member("labels", 0.9, labels()),
        member("annotations", 0.4, annotations()),
    ])
}

fn labels() -> Values {
    object([
        member("app.kubernetes.io/version", 0.8, version()),
        member("surefoot.dev/model", 0.7, of(["churn", "fraud", ""])),
        member("surefoot.dev/track", 0.6, of(["canary", "canary", "stable", "Canary", ""])),
        member("app", 0.3, of(["x"])),
    ])
}

fn annotations() -> Values {
    object([
        member("kubectl.kubernetes.io/default-container", 0.4, of(["model", "sidecar", "nobody"])),
        member("deprecated.deployment.rollback.to", 0.2, of(["0", "3", ""])),
    ])
}

fn template() -> Values {
    let volume = object([
        member("name", 0.95, of(["weights", "cache"])),
        member("image", 0.5, object([member("reference", 0.9, image())])),
    ]);
    let spec = object([
        member("containers", 0.97, list(container(), 4)),
        member("initContainers", 0.4, list(container(), 3)),
        member("ephemeralContainers", 0.1, list(container(), 2)),
        member("volumes", 0.3, list(volume, 3)),
        member("resources", 0.1, resources()),
    ]);
    object([member("metadata", 0.95, metadata()), member("spec", 0.97, spec)])
}

fn container() -> Values {
    object([
        member("name", 0.97, of(["model", "sidecar", "main", "a", "b"])),
        member("image", 0.95, image()),
        member("restartPolicy", 0.1, of(["Always"])),
        member("args", 0.2, of([json!(["--port", "9000"]), json!(["--port=9000"]), json!([])])),
        member("ports", 0.7, list(port(), 3)),
        member("resources", 0.8, resources()),
        member("readinessProbe", 0.6, probe()),
        member("livenessProbe", 0.6, probe()),
        member("startupProbe", 0.4, probe()),
    ])
}

fn port() -> Values {
    object([
        member("name", 0.7, of(["http", "grpc", "metrics", ""])),
        member("containerPort", 0.95, of([80, 8000, 8080, 8500, 8501, 9000, 50051])),
        member("protocol", 0.6, of(["TCP", "TCP", "UDP", "SCTP"])),
    ])
}

fn probe() -> Values {
    let to = || {
        object([
            member("port", 0.9, prop_oneof![of([8000, 8080, 0]), of(["http", "nope", "8080", ""])].boxed()),
            path(),
        ])
    };
    object([
        member("httpGet", 0.6, to()),
        member("tcpSocket", 0.15, to()),
        member("grpc", 0.15, object([member("port", 0.9, number(8000..9001))])),
        member("exec", 0.15, of([json!({"command": ["true"]}), json!({})])),
        member("initialDelaySeconds", 0.4, number(0..200)),
        member("periodSeconds", 0.7, number(1..30)),
        member("timeoutSeconds", 0.3, number(1..5)),
        member("failureThreshold", 0.7, number(1..90)),
        member("terminationGracePeriodSeconds", 0.1, number(1..90)),
    ])
}

fn path() -> Member {
    member("path", 0.8, of(["/", "/health", "/v2/health/ready", "/healthz"]))
}

fn resources() -> Values {
    let amounts = || {
        object([
            member("cpu", 0.8, quantity()),
            member("memory", 0.8, quantity()),
            member("nvidia.com/gpu", 0.25, quantity()),
            member("amd.com/gpu", 0.05, quantity()),
            member("nvidia.com/mig-1g.5gb", 0.05, quantity()),
            member("ephemeral-storage", 0.1, quantity()),
        ])
    };
    object([
        member("requests", 0.8, amounts()),
        member("limits", 0.8, amounts()),
        member("claims", 0.05, of([json!([{"name": "gpu"}])])),
    ])
}

/// Every notation of a quantity, and what is none.
fn quantity() -> Values {
    of([
        json!("1"),
        json!("1000m"),
        json!("1e3"),
        json!("0.5"),
        json!("500m"),
        json!("1.5Gi"),
        json!("1536Mi"),
        json!("128974848"),
        json!("129e6"),
        json!("129M"),
        json!("1E"),
        json!("1Ei"),
        json!("-1"),
        json!("0"),
        json!("0m"),
        json!("0.0"),
        json!("+2"),
        json!("2e-3"),
        json!("1E3"),
        json!("0.1m"),
        json!("1n"),
        json!("3u"),
        json!(".5"),
        json!("5."),
        json!("1k"),
        json!("1K"),
        json!("lots"),
        json!(""),
        json!("1 Gi"),
        json!("١"),
        json!("9223372036854775807"),
        json!("1e30"),
        json!(2),
        json!(0.25),
        json!(-3),
    ])
}

fn image() -> Values {
    of([
        "model",
        "model:latest",
        "model:1.2",
        "registry.local:5000/model",
        "registry.local:5000/model:1",
        "library/model:2",
        "docker.io/library/model:2",
        "localhost/model:3",
        "model@sha256:0123",
        "model:latest@sha256:0123",
        "model:1.2@sha256:4567",
        "",
        ":",
        "model:",
        "a/b/c:d/e",
        "nvcr.io/nvidia/tritonserver:24.05-py3",
        "vllm/vllm-openai:v0.6.0",
        "mirror.local/vllm/vllm-openai",
        "ghcr.io/huggingface/text-generation-inference:2.0",
        "tensorflow/serving:2.16.1",
        "pytorch/torchserve:latest-gpu",
        "é:1",
    ])
}

fn version() -> Values {
    of(["1", "1.2", "2.4.0", "", "latest"])
}

fn replicas() -> Values {
    of([0, 1, 2, 3, 4, 10, 30, 99, 100, 200])
}

fn share() -> Values {
    of([
        json!(0),
        json!(1),
        json!(2),
        json!(200),
        json!("0%"),
        json!("1%"),
        json!("25%"),
        json!("34%"),
        json!("50%"),
        json!("99%"),
        json!("100%"),
        json!("150%"),
        json!("x"),
        json!(""),
        json!("3"),
    ])
}

fn number(range: std::ops::Range<i64>) -> Values {
    range.prop_map(Value::from).boxed()
}

fn of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Values {
    select(values.into_iter().map(Into::into).collect::<Vec<Value>>()).boxed()
}

fn list(values: Values, most: usize) -> Values {
    vec(values, 0..=most).prop_map(Value::from).boxed()
}

/// A member that is there with the given likelihood, and once in 100 times of a kind that the API would refuse.
fn member(name: &'static str, likely: f64, values: Values) -> Member {
    let odd = [json!(null), json!(7), json!("odd"), json!([]), json!({}), json!(true), json!([{}]), json!({"a": [1]})];
    exact(name, likely, Union::new_weighted(vec![(99, values), (1, of(odd))]).boxed())
}

/// A member that is there with the given likelihood.
fn exact(name: &'static str, likely: f64, values: Values) -> Member {
    let values = values.prop_map(move |value| (name.to_owned(), value));
    if likely < 1.0 { weighted(likely, values).boxed() } else { values.prop_map(Some).boxed() }
}

fn object(members: impl IntoIterator<Item = Member>) -> Values {
    let members: Vec<Member> = members.into_iter().collect();
    members.prop_map(|members| Value::from(members.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}
