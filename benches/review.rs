//! What a review costs in process: bytes in, policies asked, bytes out, with the built-in set.
//!
//! `cargo bench --bench review`. The bars: 300 us for the whole of a CREATE, 100 us for an UPDATE that changes nothing that is
//! judged, and with 50 policies no more than 50 times what one takes.

use std::{
    env, fs,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use surefoot::{
    admission::{
        Facts, History, PolicySet, Request, Source,
        answer::{self, Answer},
        default, is_asked_about, validate,
    },
    config::{Config, Guard},
    template::Json,
};

// As the server has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Long enough that a limit never shows, as in a healthy server.
const LIMIT: Duration = Duration::from_secs(2);
/// Runs of each step; the middle one counts.
const RUNS: usize = 2000;

fn main() -> ExitCode {
    // The engine builds errors that it drops, and a backtrace in each doubles its cost. The server runs without, too.
    if env::var_os("RUST_LIB_BACKTRACE").is_none_or(|set| set != "0") {
        return again_without_backtraces();
    }
    // `cargo test --all-targets` runs benches once to see that they work.
    let runs = if env::args().any(|argument| argument == "--bench") { RUNS } else { 1 };
    let config = Config::default();
    let set = PolicySet::load(PolicySet::built_in_sources(), &config).unwrap_or_else(|errors| panic!("{errors}"));
    println!("us per review, middle of {runs}; {} policies", set.policies().len());
    println!("{:<14}{:>8}{:>9}{:>10}{:>9}{:>9}{:>11}", "", "bytes", "parse", "validate", "answer", "whole", "defaults");
    for name in ["create", "update", "violations"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/reviews/{name}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let review: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        measure(name, review.to_string().as_bytes(), &set, &config, runs);
    }
    unasked(runs);
    many(runs);
    ExitCode::SUCCESS
}

fn measure(name: &str, body: &[u8], set: &PolicySet, config: &Config, runs: usize) {
    let (facts, now) = (facts(), Timestamp::UNIX_EPOCH);
    let parse = || Request::parse(body).unwrap_or_else(|error| panic!("{name}: {error}"));
    let judge = |request: &Request| validate(set, request, &facts, config, now, LIMIT);
    let request = parse();
    let verdict = judge(&request);
    assert_eq!(verdict.failures, [], "{name}");
    let whole = || {
        let request = parse();
        let verdict = judge(&request);
        answer::validated(&request, &verdict, now).to_bytes()
    };
    let took = middle(runs, whole);
    let bar = match name {
        "create" if took <= 300.0 => ", 300: met",
        "create" => ", 300: missed",
        _ => "",
    };
    println!(
        "{name:<14}{:>8}{:>9.1}{:>10.1}{:>9.1}{took:>9.1}{:>11.1}   {} denials{bar}",
        body.len(),
        middle(runs, parse),
        middle(runs, || judge(&request)),
        middle(runs, || answer::validated(&request, &verdict, now).to_bytes()),
        middle(runs, || default(set, &request, &facts, config, now, LIMIT)),
        verdict.denials().count(),
    );
}

/// An UPDATE that changes nothing that is judged, each with another annotation: what a controller does all day.
fn unasked(runs: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reviews/update.json");
    let review = fs::read_to_string(path).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let Some(mut review) = review else { panic!("no review") };
    let request = &mut review["request"];
    request["object"] = request["oldObject"].clone();
    request["object"]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2".into();
    let body = review.to_string();
    let took = middle(runs, || {
        let request = Request::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let old = request.old_object().unwrap_or_else(|| panic!("no old object"));
        assert!(!is_asked_about(old, request.object()));
        Answer::allowed(&request).to_bytes()
    });
    let bar = if took <= 100.0 { "met" } else { "missed" };
    println!("{:<14}{:>8}{took:>38.1}{:>11}   100: {bar}", "unasked", body.len(), "");
}

/// What a review costs by the same policy under one name and under more of them, and of that each policy alone. (With 50 of
/// them the processor's caches hold less of each, so each costs a little more.)
fn many(runs: usize) {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reviews/create.json"));
    let Ok(body) = text else { panic!("no review") };
    let (facts, config, now) = (facts(), Config::default(), Timestamp::UNIX_EPOCH);
    println!("\n{:<14}{:>10}{:>10}{:>16}", "policies", "loaded", "whole", "of each policy");
    let mut first = None;
    for count in [1, 10, 50] {
        let started = Instant::now();
        let set = PolicySet::load(copies(count), &config).unwrap_or_else(|errors| panic!("{errors}"));
        let loaded = started.elapsed();
        let parse = || Request::parse(&body).unwrap_or_else(|error| panic!("{error}"));
        let judge = |request: &Request| validate(&set, request, &facts, &config, now, LIMIT);
        let request = parse();
        let whole = middle(runs / 4 + 1, || judge(&parse()));
        let each = middle(runs / 4 + 1, || judge(&request)) / count as f64;
        let most = *first.get_or_insert(whole) * count as f64;
        let met = if whole <= most { "met" } else { "missed" };
        println!("{count:<14}{:>7} ms{whole:>10.1}{each:>16.1}   {most:.0}: {met}", loaded.as_millis());
    }
}

/// `images` under `count` names, with what policies share.
fn copies(count: usize) -> Vec<Source> {
    let built_in = PolicySet::built_in_sources();
    let (images, lib): (Vec<Source>, Vec<Source>) = built_in
        .into_iter()
        .filter(|source| source.path == "images/policy.rego" || source.path.starts_with("lib/"))
        .filter(|source| !source.path.ends_with("_test.rego"))
        .partition(|source| source.path == "images/policy.rego");
    let renamed = images.iter().flat_map(|source| {
        (0..count).map(|number| Source {
            path: format!("images-{number}/policy.rego"),
            text: source.text.replace("package surefoot.images", &format!("package surefoot.images_{number}")),
        })
    });
    renamed.chain(lib.iter().cloned()).collect()
}

/// Microseconds of the middle run.
fn middle<T>(runs: usize, mut step: impl FnMut() -> T) -> f64 {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(step());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2].as_secs_f64() * 1e6
}

/// An enforced namespace with a stable and a canary peer, and a record without quarantine.
fn facts() -> Facts {
    let peer = |name: &str, track: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"shop","labels":{{"surefoot.dev/model":"churn","surefoot.dev/track":"{track}"}}}},
                "spec":{{"replicas":4}}}}"#
        );
        Json::from_json_str(&text).unwrap_or_else(|error| panic!("{error}"))
    };
    Facts {
        guard: Some(Guard::Enforce),
        namespace: Json::from_json_str(r#"{"labels":{"surefoot.dev/guard":"enforce"},"annotations":{}}"#).ok(),
        peers: Some(vec![peer("churn-b", "stable"), peer("churn-canary", "canary")]),
        history: Some(History::default()),
        ..Facts::default()
    }
}

fn again_without_backtraces() -> ExitCode {
    let done = env::current_exe()
        .and_then(|program| Command::new(program).args(env::args_os().skip(1)).env("RUST_LIB_BACKTRACE", "0").status());
    match done {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
