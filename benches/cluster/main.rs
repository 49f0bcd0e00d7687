//! What a review adds to a `kubectl apply`, as whoever applies sees it: creates (`?dryRun=All`) through a real API server,
//! without a policy, with surefoot, and with the same rules as one ValidatingAdmissionPolicy as far as CEL can say them.
//! `make bench-cluster`; more rounds than five: `cargo bench --bench cluster -- 10`.
//!
//! Rounds alternate, for a machine is not equally fast all the time. Each Deployment has a name of its own: surefoot remembers its
//! answers. The bars: at most 1 ms is added at the median, and less than CEL adds; 8 at a time at least 80 % of the rate.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::http::Request;
use kube::{Client, Config, config::Kubeconfig};
use serde_json::{Value, json};
use support::{ControlPlane, Surefoot, run};

#[path = "../../tests/support/mod.rs"]
mod support;

const RULES: &str = include_str!("rules.yaml");
const CREATE: &str = include_str!("../reviews/create.json");

/// All policies as they ship.
const CONFIG: &str = "{apiVersion: surefoot.dev/v1, kind: Config}";

/// Requests of a round, one after the other and then eight at a time.
const ONE_BY_ONE: usize = 150;
const TOGETHER: usize = 480;
const AT_A_TIME: usize = 8;

/// Who judges: the name of a namespace, and its labels.
const JUDGES: [(&str, &str, &str); 3] = [
    ("nobody", "no policy", "bench.example/judge"),
    ("surefoot", "surefoot", "surefoot.dev/guard"),
    ("cel", "one ValidatingAdmissionPolicy", "bench.example/cel"),
];

fn main() -> Result<()> {
    run::janitor_if_asked();
    let done = bench();
    run::end();
    done
}

fn bench() -> Result<()> {
    let rounds = std::env::args().find_map(|rounds| rounds.parse().ok()).unwrap_or(5);
    let plane = ControlPlane::start()?;
    let mut surefoot = Surefoot::install(&plane, Path::new(env!("CARGO_BIN_EXE_surefoot")), CONFIG)?;
    surefoot.start_webhook()?;
    for (name, _, label) in JUDGES {
        let namespace = json!({"metadata": {"name": name, "labels": {label: "enforce"}}});
        ensure!(plane.post("/api/v1/namespaces", &namespace.to_string())?.status == 201, "no namespace {name}");
    }
    plane.admin().apply(RULES)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(plane.folder().join("admin.kubeconfig"))?;
        let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
        let mut judged: Vec<Judged> = JUDGES.iter().map(|(namespace, what, _)| Judged::new(namespace, what)).collect();
        for one in &mut judged {
            one.judges(&client).await.with_context(|| one.what)?;
        }
        for round in 0..rounds {
            for one in &mut judged {
                one.round(&client, round).await.with_context(|| one.what)?;
            }
        }
        report(&judged);
        Ok(())
    })
}

struct Judged {
    namespace: &'static str,
    what: &'static str,
    /// Of each request, one after the other.
    took: Vec<Duration>,
    /// Requests a second of each round, eight at a time.
    rates: Vec<f64>,
}

impl Judged {
    fn new(namespace: &'static str, what: &'static str) -> Self {
        Self { namespace, what, took: Vec::new(), rates: Vec::new() }
    }

    /// Until a bad one is refused by whoever is to judge, which takes until the API server knows of it; and a good one is not.
    async fn judges(&self, client: &Client) -> Result<()> {
        let mut bad = deployment("bad");
        bad["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.local/model:latest");
        let begun = Instant::now();
        while self.namespace != "nobody" && self.ask(client, &bad).await.is_ok() {
            ensure!(begun.elapsed() < Duration::from_secs(60), "a bad Deployment is admitted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for number in 0..100 {
            self.ask(client, &deployment(&format!("warm-{number}"))).await?;
        }
        Ok(())
    }

    async fn round(&mut self, client: &Client, round: usize) -> Result<()> {
        for number in 0..ONE_BY_ONE {
            let deployment = deployment(&format!("churn-{round}-{number}"));
            let begun = Instant::now();
            self.ask(client, &deployment).await?;
            self.took.push(begun.elapsed());
        }
        let begun = Instant::now();
        let lane = |lane: usize| {
            let this = &*self;
            async move {
                for number in 0..TOGETHER / AT_A_TIME {
                    this.ask(client, &deployment(&format!("churn-{round}-{lane}-{number}"))).await?;
                }
                anyhow::Ok(())
            }
        };
        futures::future::try_join_all((0..AT_A_TIME).map(lane)).await?;
        self.rates.push(TOGETHER as f64 / begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn ask(&self, client: &Client, deployment: &Value) -> Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments?dryRun=All", self.namespace);
        let request = Request::post(path).header("Content-Type", "application/json");
        client.request_text(request.body(serde_json::to_vec(deployment)?)?).await.map(drop).map_err(Into::into)
    }

    fn at(&self, share: f64) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort();
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    fn rate(&self) -> f64 {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The one of the benchmark of reviews, of 8.6 KB as a review.
fn deployment(name: &str) -> Value {
    let review: Value = serde_json::from_str(CREATE).unwrap_or_default();
    let mut object = review["request"]["object"].clone();
    object["metadata"]["name"] = json!(name);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
        metadata.remove("managedFields");
        metadata.remove("uid");
    }
    object
}

fn report(judged: &[Judged]) {
    let Some((nobody, others)) = judged.split_first() else { return };
    println!(
        "{:<30}{:>10}{:>10}{:>12}{:>14}{:>16}",
        "judged by", "p50", "p99", "added p50", "8 at a time", "of no policy's"
    );
    for one in judged {
        let added = one.at(0.5).saturating_sub(nobody.at(0.5));
        println!(
            "{:<30}{:>7.2} ms{:>7.2} ms{:>9.2} ms{:>12.0}/s{:>14.0} %",
            one.what,
            one.at(0.5).as_secs_f64() * 1e3,
            one.at(0.99).as_secs_f64() * 1e3,
            added.as_secs_f64() * 1e3,
            one.rate(),
            one.rate() / nobody.rate() * 100.0
        );
    }
    if let [surefoot, cel] = others {
        let added = surefoot.at(0.5).saturating_sub(nobody.at(0.5));
        let met = |met: bool| if met { "met" } else { "missed" };
        println!("added p50 at most 1.0 ms: {}", met(added <= Duration::from_millis(1)));
        println!("less than CEL: {}", met(surefoot.at(0.5) < cel.at(0.5)));
        println!("8 at a time at least 80 %: {}", met(surefoot.rate() >= 0.8 * nobody.rate()));
    }
}
