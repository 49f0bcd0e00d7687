//! A real Prometheus that scrapes a real webhook and a real controller: the shipped alert rules load and fire, and each query
//! of the dashboard has an answer.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use regex::Regex;
use serde_json::{Value, json};

use crate::{
    alerts, models,
    schema::top,
    shared,
    support::{
        ControlPlane, Look, Surefoot, http,
        run::{self, Process},
        until,
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let scrapes = "prometheus::scrapes_both_and_alerts_and_answers_the_dashboard";
    match Command::new("prometheus").arg("--version").output().is_ok() {
        true => vec![trial(scrapes, prometheus)],
        false => {
            let name = format!("{scrapes} [prometheus is missing: Debian's package prometheus]");
            vec![trial(&name, prometheus).with_ignored_flag(true)]
        }
    }
}

const LIMIT: Duration = Duration::from_secs(60);

/// Deployments here are looked at and reverted by nobody: what is under test is what is counted.
const CONFIG: &str = "apiVersion: surefoot.dev/v1\nkind: Config\n";

/// Series that are there from the first time on that something goes wrong, or goes back. Nothing of it happens here.
const LATER: [&str; 5] = [
    "surefoot_refused_requests_total",
    "surefoot_policy_failures_total",
    "surefoot_policy_set_aside",
    "surefoot_controller_reverts_total",
    "surefoot_controller_stalls_total",
];

struct Prometheus {
    address: SocketAddr,
    process: Process,
}

impl Prometheus {
    /// Scrapes and evaluates each second. The rules are the shipped ones but for `for:`, which is a second at most: what is
    /// under test is that they fire, not when.
    fn start(surefoot: &Surefoot, controller: SocketAddr) -> Result<Self> {
        let folder = run::subfolder("prometheus")?;
        let mut rules = alerts::rules()?;
        for rule in rules["groups"][0]["rules"].as_array_mut().into_iter().flatten() {
            rule["for"] = json!("1s");
        }
        fs::write(folder.join("rules.yaml"), rules.to_string())?;
        let ca = surefoot.ca();
        let configuration = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "webhook", "scheme": "https", "tls_config": {"ca_file": ca},
                "static_configs": [{"targets": [surefoot.listen().to_string()]}]},
            {"job_name": "controller", "static_configs": [{"targets": [controller.to_string()]}]},
        ]});
        fs::write(folder.join("prometheus.yaml"), configuration.to_string())?;
        let address = SocketAddr::from(([127, 0, 0, 1], run::free_port()?));
        let process = Process::start("prometheus", &folder, command(&folder, address))?;
        let prometheus = Self { address, process };
        until("Prometheus", LIMIT, || {
            let answer = http::plain(address, "/-/ready", None);
            Ok(match answer {
                Ok(http::Answer { status: 200, .. }) => Look::Done(()),
                other => Look::Not(format!("{other:?} {}", prometheus.process.tail(20))),
            })
        })?;
        Ok(prometheus)
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::plain(self.address, path, None)?;
        let body: Value = serde_json::from_str(&answer.body).with_context(|| format!("{path}: {answer:?}"))?;
        ensure!(answer.status == 200 && body["status"] == "success", "{path}: {body}");
        Ok(body["data"].clone())
    }

    fn query(&self, query: &str) -> Result<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Ok(self.ask(&format!("/api/v1/query?query={encoded}"))?["result"].take())
    }

    /// Names of the alerts that fire.
    fn firing(&self) -> Result<BTreeSet<String>> {
        let alerts = self.ask("/api/v1/alerts")?;
        let firing = alerts["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] == "firing");
        Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
    }
}

fn command(folder: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new("prometheus");
    command
        .arg("--config.file")
        .arg(folder.join("prometheus.yaml"))
        .arg("--storage.tsdb.path")
        .arg(folder.join("data"));
    command.arg(format!("--web.listen-address={address}")).current_dir(folder);
    command
}

fn prometheus() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut surefoot = Surefoot::install(&plane, shared::program(), CONFIG)?;
    surefoot.start_webhook()?;
    let controller = SocketAddr::from(([127, 0, 0, 1], run::free_port()?));
    surefoot.start_controller_listening(controller)?;
    asked_about(&plane)?;
    let prometheus = Prometheus::start(&surefoot, controller)?;
    scraped(&prometheus)?;
    answers_dashboard(&prometheus)?;
    named_metrics_are_there(&prometheus)?;
    let firing = prometheus.firing()?;
    ensure!(firing.is_empty(), "all is well, and these fire: {firing:?}");
    // The controller ends: nobody leads.
    surefoot.stop_controller()?;
    fires(&prometheus, "SurefootNobodyLeads")?;
    // And the webhook.
    surefoot.stop_webhook()?;
    fires(&prometheus, "SurefootWebhookAbsent")
}

/// Something is admitted, with a patch, and something is refused.
fn asked_about(plane: &ControlPlane) -> Result<()> {
    let (admin, _) = shared::namespace(plane, "scraped", "enforce")?;
    admin.run_with_input(&["apply", "-f", "-"], &models::good("good").to_string())?.success()?;
    admin.run_with_input(&["apply", "-f", "-"], &models::bad("bad").to_string())?.failure().map(drop)
}

fn scraped(prometheus: &Prometheus) -> Result<()> {
    until("both targets", LIMIT, || {
        let targets = prometheus.ask("/api/v1/targets")?["activeTargets"].take();
        let up = targets.as_array().into_iter().flatten().filter(|target| target["health"] == "up").count();
        Ok(if up == 2 { Look::Done(()) } else { Look::Not(targets.to_string()) })
    })?;
    until("all rules to be evaluated", LIMIT, || {
        let groups = prometheus.ask("/api/v1/rules")?["groups"].take();
        let rules = groups[0]["rules"].as_array().cloned().unwrap_or_default();
        let well =
            rules.len() == alerts::each(&alerts::rules()?).count() && rules.iter().all(|rule| rule["health"] == "ok");
        Ok(if well { Look::Done(()) } else { Look::Not(groups.to_string()) })
    })
}

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(top("manifests/overlays/prometheus/dashboard.json"))?)?)
}

/// Of all panels: title and query, as Grafana would send it for a range of five minutes.
fn queries() -> Result<Vec<(String, String)>> {
    let dashboard = dashboard()?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("no title")?;
        for target in panel["targets"].as_array().with_context(|| format!("nothing is asked in {title}"))? {
            let query = target["expr"].as_str().context("no query")?;
            queries.push((title.to_owned(), query.replace("$__rate_interval", "5m")));
        }
    }
    Ok(queries)
}

/// A panel that has nothing to show because nothing is wrong shows 0.
fn answers_dashboard(prometheus: &Prometheus) -> Result<()> {
    let queries = queries()?;
    ensure!(queries.len() >= 10, "{queries:?}");
    for (title, query) in &queries {
        until(&format!("an answer of {title}: {query}"), LIMIT, || {
            let result = prometheus.query(query)?;
            let there = result.as_array().is_some_and(|series| !series.is_empty());
            Ok(if there { Look::Done(()) } else { Look::Not(result.to_string()) })
        })?;
    }
    println!("{} queries of the dashboard have an answer", queries.len());
    Ok(())
}

/// In what both answered, or registered where nothing of it has been counted yet.
fn named_metrics_are_there(prometheus: &Prometheus) -> Result<()> {
    let rules = alerts::rules()?;
    let expressions = alerts::each(&rules).filter_map(|rule| rule["expr"].as_str().map(str::to_owned));
    let all: String =
        expressions.chain(queries()?.into_iter().map(|(_, query)| query)).map(|query| query + "\n").collect();
    for found in Regex::new("surefoot_[a-z_]+")?.find_iter(&all) {
        let name = found.as_str();
        let counted = prometheus.query(name)?.as_array().is_some_and(|series| !series.is_empty());
        ensure!(counted || LATER.contains(&name), "{name} has no series, though something was asked");
    }
    alerts::are_measured(&all)
}

fn fires(prometheus: &Prometheus, alert: &str) -> Result<()> {
    until(&format!("{alert} to fire"), LIMIT, || {
        let firing = prometheus.firing()?;
        Ok(if firing.contains(alert) { Look::Done(()) } else { Look::Not(format!("{firing:?}")) })
    })
}
