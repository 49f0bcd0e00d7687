//! The policies, checked and compiled as one set: what passes here can be asked; what does not never replaces a set that
//! did.
//!
//! ```text
//!   sources ─▶ gate (nesting) ─▶ parse ─▶ gate (calls, names) ─▶ compile ─▶ METADATA ─▶ params on empty input
//!                                                                                          │
//!   config.yaml ──────────────── parameters, action, overrides, each checked against ──────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use super::{
    Failure, Limits, Watch,
    bounds::Bounds,
    engine::{Broken, Engine, Session},
    gate::{self, Module, References},
    metadata::{self, Metadata, Need},
    settings::{self, Settings},
    stamps,
    testing::{TestOutcome, Tests},
    validate::failure,
    wire::{Request, tree},
};
use crate::{
    config::{
        Config, ConfigError,
        yaml::{self, Position},
    },
    template::{Json, json},
};

pub use crate::config::ConfigError as LoadError;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");

/// Learning the names of parameters is cheap; a policy that needs longer than this has an endless `params`.
const LEARNING: Duration = Duration::from_secs(2);

/// What parameters are tried on: there is something wrong with it for most policies.
const SAMPLE: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"name": "sample", "namespace": "shop", "labels": {"surefoot.dev/model": "m", "surefoot.dev/track": "canary"}},
    "spec": {"replicas": 100, "template": {"spec": {"containers": [{"name": "model", "image": "model"}]}}}}"#;

/// One file of a policy folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Relative to the folder, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Why a set was not loaded. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl std::fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

/// Policies that passed the gate, with their settings. Immutable; replaced whole.
#[derive(Clone, Debug)]
pub struct PolicySet {
    pub(super) policies: Vec<Policy>,
    digest: String,
    unseen: Vec<&'static str>,
}

/// What becomes of what policies print.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prints {
    Shown,
    Hushed,
}

/// One policy of a set.
#[derive(Clone, Debug)]
pub struct Policy {
    /// With dashes.
    pub name: String,
    /// The file in which its package begins (the one with METADATA, else the first).
    pub file: String,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Its parameters with their defaults.
    pub parameters: BTreeMap<String, Json>,
    /// Where its `deny`, `warn` and `defaults` begin: for messages about what they return.
    pub(super) places: BTreeMap<&'static str, (String, Position)>,
    pub(super) settings: Settings,
    /// It has the helpers' files, the policy's own and those of policies that it refers to: what an engine has besides
    /// makes each question to it dearer.
    pub(super) engine: Engine,
}

/// The rules of a policy that surefoot asks for.
const RULES: [&str; 3] = ["deny", "warn", "defaults"];

impl Policy {
    /// The rule of the generated entry module that gives `deny` and `warn` in one evaluation.
    pub(super) fn verdict_rule(&self) -> String {
        entry(&self.package(), "verdict")
    }

    /// The rule that gives its defaults; `None` where it has none.
    pub(super) fn defaults_rule(&self) -> Option<String> {
        self.places.contains_key("defaults").then(|| entry(&self.package(), "defaults"))
    }

    /// What surefoot asks of it.
    fn entry_module(&self) -> String {
        let package = self.package();
        let asked: Vec<String> = ["deny", "warn"]
            .into_iter()
            .filter(|rule| self.has(rule))
            .map(|rule| format!("\"{rule}\": data.surefoot.{package}.{rule}"))
            .collect();
        let mut text = format!("package surefoot_entry.{package}\n\nverdict := {{{}}}\n", asked.join(", "));
        for (rule, name) in [("defaults", "defaults"), ("params", "parameters")] {
            if self.has(rule) {
                text.push_str(&format!("{name} := data.surefoot.{package}.{rule}\n"));
            }
        }
        text
    }

    /// The first of its rules that surefoot asks for.
    fn first_rule(&self) -> String {
        let rule = RULES.into_iter().find(|rule| self.has(rule)).unwrap_or_default();
        format!("data.surefoot.{}.{rule}", self.package())
    }

    fn package(&self) -> String {
        self.name.replace('-', "_")
    }

    /// It has this rule: `deny`, `warn`, `defaults` or `params`.
    pub fn has(&self, rule: &str) -> bool {
        self.places.contains_key(rule)
    }

    /// It has a `deny` or `warn`.
    pub(super) fn judges(&self) -> bool {
        self.places.contains_key("deny") || self.places.contains_key("warn")
    }

    /// It judges namespaces rather than Deployments.
    pub fn judges_namespaces(&self) -> bool {
        self.metadata.needs.contains(&Need::Isolation)
    }

    /// It needs what no file of Deployments tells: history, isolation.
    pub fn needs_a_cluster(&self) -> bool {
        self.metadata.needs.iter().any(|need| matches!(need, Need::History | Need::Isolation))
    }

    /// It needs facts of the cluster whose cached copy may be older than the request.
    pub(super) fn uses_facts(&self) -> bool {
        self.metadata.needs.iter().any(|need| matches!(need, Need::Peers | Need::History))
    }
}

impl PolicySet {
    /// The policies that are compiled in, with their tests.
    pub fn built_in_sources() -> Vec<Source> {
        let mut sources = Vec::new();
        collect(&BUILT_IN, &mut sources);
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// Checks, compiles and configures `sources`. Files that do not end in `.rego` are passed over. What policies print
    /// goes to stderr while they judge.
    pub fn load(sources: Vec<Source>, config: &Config) -> Result<Self, LoadErrors> {
        Self::checked(&rego(sources), config, &Arc::default(), Prints::Shown).map(|(set, _)| set)
    }

    /// The same, with the engine that has parsed all files, tests too.
    fn checked(
        sources: &[Source],
        config: &Config,
        watch: &Arc<Watch>,
        prints: Prints,
    ) -> Result<(Self, Engine), LoadErrors> {
        let (mut engine, mut modules) = parse(sources)?;
        let checked = gate::check(engine.modules(), sources);
        if prints == Prints::Hushed {
            checked.hush(&mut modules);
        }
        let gate::Checked { mut errors, references, used, .. } = checked;
        let mut packages = policies(&modules, sources, &used, &mut errors);
        if packages.is_empty() && errors.is_empty() {
            errors.push(no_place("no policy: none of the files has a package `surefoot.NAME`"));
        }
        for name in config.policies.keys().filter(|name| !packages.iter().any(|policy| policy.name == **name)) {
            let known: Vec<&str> = packages.iter().map(|policy| policy.name.as_str()).collect();
            let at = config.policies[name].at;
            let message = yaml::unknown("there is no policy", name, &known);
            errors.push(ConfigError::new(&config.origin.file, &config.origin.text, at, message));
        }
        errors.extend(unknown_exempted(&packages, config));
        if !errors.is_empty() {
            return Err(LoadErrors(top_down(errors, config)));
        }
        let first = packages.first().map(Policy::first_rule).unwrap_or_default();
        let compiled = engine.prepare(&first).and_then(|()| compile(&mut packages, &modules, &references));
        compiled.map_err(|broken| LoadErrors(vec![located(broken, sources)]))?;
        let tests: Vec<&str> = modules.iter().filter(|m| role(m) == Role::Test).map(|m| m.file.as_str()).collect();
        let rest: Vec<Source> = sources.iter().filter(|s| !tests.contains(&s.path.as_str())).cloned().collect();
        let (digest, unseen) = (digest(&rest, config), stamps::unseen(&rest, config));
        let mut set = Self { policies: packages, digest, unseen };
        set.learn_parameters(config, sources, watch)?;
        Ok((set, engine))
    }

    /// The same for whoever serves: the set's own tests pass, and its policies print nothing. Each test that fails is an error
    /// with its place. A test may do what nothing stops, and this does not return then: `watch` shows which.
    pub fn load_tested(sources: Vec<Source>, config: &Config, watch: &Arc<Watch>) -> Result<Self, LoadErrors> {
        let sources = rego(sources);
        let (set, engine) = Self::checked(&sources, config, watch, Prints::Hushed)?;
        let failed = Tests::of(sources.clone(), engine)?.run_all(watch).into_iter().filter_map(|test| {
            let TestOutcome { name, file, line, column, failed, .. } = test;
            let message = format!("test {name} failed: {}; `surefoot test` shows more", failed?);
            Some(ConfigError::new(&file, text_of(&sources, &file), Position { line, column }, message))
        });
        let failed: Vec<LoadError> = failed.collect();
        if failed.is_empty() { Ok(set) } else { Err(LoadErrors(failed)) }
    }

    /// What identifies the rules that verdicts are made by, wherever they are loaded: 12 hex digits over the policies (their
    /// tests left out) and over what the configuration says, not how.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the API server stamps on each request anew and no policy of this set names: `creationTimestamp`, `generation`,
    /// `resourceVersion`, `uid`. Policies do not see it, and verdicts do not depend on it; in `metadata`, and `uid` in the
    /// request too.
    pub fn unseen(&self) -> &[&'static str] {
        &self.unseen
    }

    /// What the rules of one policy give for an input document, unweighed: `{"deny": […], "warn": […], "defaults": […]}`,
    /// each as far as the policy has it, as `opa eval -i INPUT 'data.surefoot.NAME.deny'` would print it. `None`: there is
    /// no policy of this name. For those who compare; a review is judged by [`validate`](super::validate()).
    pub fn ask(&self, policy: &str, input: &Json, limit: Duration) -> Option<Result<Json, Failure>> {
        let policy = self.policies.iter().find(|one| one.name == policy)?;
        let mut session = Session::new(limit);
        let mut ask =
            |rule: String| session.eval(&policy.engine, &rule, input.clone()).map_err(|broken| failure(policy, broken));
        let verdict = policy.judges().then(|| ask(policy.verdict_rule())).transpose();
        let defaults = policy.defaults_rule().map(ask).transpose();
        let both = verdict.and_then(|verdict| {
            let mut answer: BTreeMap<Json, Json> = match verdict {
                Some(Json::Object(members)) => {
                    members.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
                }
                _ => BTreeMap::new(),
            };
            answer.extend(defaults?.map(|defaults| (Json::from("defaults"), defaults)));
            Ok(Json::from(answer))
        });
        Some(both)
    }

    /// In the order in which they are asked.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    fn learn_parameters(&mut self, config: &Config, sources: &[Source], watch: &Arc<Watch>) -> Result<(), LoadErrors> {
        let mut errors = Vec::new();
        let mut session = Session::new(Limits { time: LEARNING, watch: Some(Arc::clone(watch)) });
        for policy in &mut self.policies {
            if policy.places.contains_key("params") {
                let input = tree([("parameters", Json::new_object())]);
                match session.eval(&policy.engine, &entry(&policy.package(), "parameters"), input) {
                    Ok(Json::Object(members)) => {
                        let named = members.iter().filter_map(|(name, value)| Some((json::as_str(name)?, value)));
                        policy.parameters = named.map(|(name, value)| (name.to_owned(), value.clone())).collect();
                    }
                    Ok(_) => {
                        let message = "`params` must give an object on an empty input, e.g. `params := lib.params({})`";
                        errors.push(policy.error("params", sources, message));
                    }
                    Err(broken) => errors.push(policy.broken_parameters(broken, sources)),
                }
            }
            errors.extend(policy.check_metadata(sources));
            match settings::settings(policy, config) {
                Ok(settings) => policy.settings = settings,
                Err(found) => {
                    errors.extend(found);
                    continue;
                }
            }
            errors.extend(policy.try_parameters(&mut session, config));
        }
        if errors.is_empty() { Ok(()) } else { Err(LoadErrors(top_down(errors, config))) }
    }
}

/// What is wrong with the configuration in the order of its lines, however the policies are sorted; theirs comes before.
fn top_down(mut errors: Vec<LoadError>, config: &Config) -> Vec<LoadError> {
    errors.sort_by_key(|error| (error.file == config.origin.file).then_some((error.line, error.column)));
    errors
}

impl Policy {
    /// Rules that are called nearly as those that surefoot asks for, and that nothing uses: their author believes that they
    /// count. One that is no set may be a helper, unless the policy has nothing else.
    fn misnamed(&self, modules: &[Module], sources: &[Source], used: &BTreeSet<Vec<String>>) -> Vec<LoadError> {
        let has_none = !RULES.iter().any(|rule| self.has(rule));
        let package = ["surefoot".to_owned(), self.package()];
        let own = modules.iter().filter(|module| module.package == package && !module.file.ends_with("_test.rego"));
        let rules = own.flat_map(|module| module.rules.iter().map(move |rule| (module, rule)));
        let misnamed = rules.filter_map(|(module, rule)| {
            let meant = meant(&rule.name, has_none)?;
            let is_used = used.contains(&[&package[..], std::slice::from_ref(&rule.name)].concat());
            let message = format!("nobody asks for `{}`; did you mean `{meant}`?", rule.name);
            let error = ConfigError::new(&module.file, text_of(sources, &module.file), rule.at, message);
            (!is_used && (rule.is_set || has_none)).then_some(error)
        });
        misnamed.collect()
    }

    fn error(&self, rule: &str, sources: &[Source], message: &str) -> LoadError {
        let (file, at) = self.places.get(rule).cloned().unwrap_or_else(|| (self.file.clone(), Position::default()));
        ConfigError::new(&file, text_of(sources, &file), at, message)
    }

    /// In the file of `params`, whose author can mend it: what several policies call breaks for one of them only.
    fn broken_parameters(&self, broken: Broken, sources: &[Source]) -> LoadError {
        let Broken { file, line, column, message } = &broken;
        match self.places.get("params") {
            Some((own, _)) if own == file => located(broken, sources),
            _ if file.is_empty() => self.error("params", sources, &format!("`params` on an empty input {message}")),
            _ => {
                let told = format!("`params` on an empty input breaks at {file}:{line}:{column}: {message}");
                self.error("params", sources, &told)
            }
        }
    }

    /// A value may be of the right kind and break the policy all the same, on every Deployment there is: a glob that is
    /// none, a number in a list of texts. Each is tried on one Deployment; a policy that breaks without it is not its fault.
    fn try_parameters(&self, session: &mut Session, config: &Config) -> Vec<LoadError> {
        let Some(configured) = config.policies.get(&self.name) else { return Vec::new() };
        let rules: Vec<String> =
            self.judges().then(|| self.verdict_rule()).into_iter().chain(self.defaults_rule()).collect();
        let Ok(sample) = Json::from_json_str(SAMPLE) else { return Vec::new() };
        let request = Request::create(sample, "shop");
        let mut broken = |parameters: Json| {
            let context = tree([("via", Json::from("deployment")), ("peers", Json::new_array())]);
            let input = tree([("request", request.tree().clone()), ("parameters", parameters), ("context", context)]);
            rules.iter().find_map(|rule| session.eval(&self.engine, rule, input.clone()).err())
        };
        let all: Vec<_> =
            configured.parameters.iter().chain(configured.overrides.iter().flat_map(|one| &one.parameters)).collect();
        if all.is_empty() || broken(Json::new_object()).is_some() {
            return Vec::new();
        }
        let refused = all.into_iter().filter_map(|(name, parameter)| {
            let Broken { message, .. } = broken(tree([(name, Json::from(parameter.value.clone()))]))?;
            let message = format!("with this value of `{name}` policy {} breaks: {message}", self.name);
            Some(ConfigError::new(&config.origin.file, &config.origin.text, parameter.at, message))
        });
        refused.collect()
    }

    /// Bounds must be of parameters that there are, and hold for their defaults.
    fn check_metadata(&self, sources: &[Source]) -> Vec<LoadError> {
        let error = |at, message| ConfigError::new(&self.file, text_of(sources, &self.file), at, message);
        let known: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
        let check = |(name, bounds): (&String, &Bounds)| match self.parameters.get(name) {
            None => vec![error(bounds.at, yaml::unknown("`params` has no parameter", name, &known))],
            Some(default) => {
                let refused = bounds.refuse(name, &settings::plain(default)).into_iter();
                refused.map(|one| error(bounds.at, format!("the default of {}", one.message))).collect()
            }
        };
        self.metadata.parameters.iter().flat_map(check).collect()
    }
}

fn collect(dir: &Dir<'_>, sources: &mut Vec<Source>) {
    for file in dir.files() {
        let path = file.path().to_string_lossy().replace('\\', "/");
        if let (true, Some(text)) = (path.ends_with(".rego"), file.contents_utf8()) {
            sources.push(Source { path, text: text.to_owned() });
        }
    }
    for dir in dir.dirs() {
        collect(dir, sources);
    }
}

fn rego(sources: Vec<Source>) -> Vec<Source> {
    sources.into_iter().filter(|source| source.path.ends_with(".rego")).collect()
}

/// Every file parsed, or the first error of each.
pub(super) fn parse(sources: &[Source]) -> Result<(Engine, Vec<Module>), LoadErrors> {
    let mut engine = Engine::new();
    let mut errors = Vec::new();
    for source in sources {
        match gate::text(source) {
            Some(error) => errors.push(error),
            None => errors.extend(engine.add(&source.path, &source.text).err().map(|broken| located(broken, sources))),
        }
    }
    if !errors.is_empty() {
        return Err(LoadErrors(errors));
    }
    let modules = engine.modules().iter().map(gate::module).collect();
    Ok((engine, modules))
}

/// What a package is there for.
#[derive(Debug, PartialEq)]
enum Role<'a> {
    Policy(&'a str),
    Library,
    Test,
    Stray,
}

fn role<'a>(module: &'a Module) -> Role<'a> {
    let package: Vec<&str> = module.package.iter().map(String::as_str).collect();
    match package.as_slice() {
        [.., last] if last.ends_with("_test") => Role::Test,
        ["surefoot", "lib", ..] => Role::Library,
        ["surefoot_entry", ..] => Role::Stray,
        _ if module.file.starts_with("lib/") => Role::Library,
        ["surefoot", name] => Role::Policy(name),
        _ => Role::Stray,
    }
}

fn policies(
    modules: &[Module],
    sources: &[Source],
    used: &BTreeSet<Vec<String>>,
    errors: &mut Vec<LoadError>,
) -> Vec<Policy> {
    let mut found: BTreeMap<String, Policy> = BTreeMap::new();
    for module in modules {
        let text = text_of(sources, &module.file);
        let mut error = |at, message: String| errors.push(ConfigError::new(&module.file, text, at, message));
        let package = match role(module) {
            Role::Policy(package) => package,
            Role::Library | Role::Test => {
                if let Err(wrong) = metadata::of_package(&module.text) {
                    error(wrong.at, wrong.message);
                }
                continue;
            }
            Role::Stray => {
                let name = module.package.join(".");
                error(
                    module.at,
                    format!("nobody would ask package `{name}`: policies are `surefoot.NAME`, helpers stand in lib/"),
                );
                continue;
            }
        };
        let metadata = match metadata::of_package(&module.text) {
            Ok(metadata) => metadata,
            Err(wrong) => {
                error(wrong.at, wrong.message);
                continue;
            }
        };
        let name = package.replace('_', "-");
        let policy = found.entry(name.clone()).or_insert_with(|| Policy {
            name,
            file: module.file.clone(),
            metadata: Metadata::default(),
            parameters: BTreeMap::new(),
            places: BTreeMap::new(),
            settings: Settings::default(),
            engine: Engine::new(),
        });
        if folder(&policy.file) != folder(&module.file) {
            error(module.at, format!("package `surefoot.{package}` is already in {}", policy.file));
        }
        if let Some(metadata) = metadata {
            policy.file.clone_from(&module.file);
            policy.metadata = metadata;
        }
        for rule in &module.rules {
            let Some(known) = RULES.into_iter().chain(["params"]).find(|known| *known == rule.name) else { continue };
            if module.file.ends_with("_test.rego") {
                let message = format!(
                    "`{known}` in a file of tests, which does not go where the policy goes; write it beside them"
                );
                error(rule.at, message);
                continue;
            }
            policy.places.entry(known).or_insert_with(|| (module.file.clone(), rule.at));
            if known != "params" && !rule.is_set {
                error(rule.at, format!("`{known}` must be a set: `{known} contains finding if {{ ... }}`"));
            }
        }
    }
    let policies: Vec<Policy> = found.into_values().collect();
    for policy in &policies {
        let misnamed = policy.misnamed(modules, sources, used);
        if misnamed.is_empty() && !RULES.iter().any(|rule| policy.has(rule)) {
            errors.push(policy.error("", sources, "this policy has no `deny`, no `warn` and no `defaults`"));
        }
        errors.extend(misnamed);
    }
    policies
}

/// What else the rules are called: by slip, by conftest (`deny_gpu`), in other tools where a policy has none of its own.
fn meant(name: &str, has_none: bool) -> Option<&'static str> {
    const ELSEWHERE: [(&str, &str); 5] =
        [("violation", "deny"), ("violations", "deny"), ("denies", "deny"), ("warning", "warn"), ("warnings", "warn")];
    let begins = name.split('_').next().unwrap_or(name);
    let is_slip = |rule: &&str| begins == *rule || strsim::damerau_levenshtein(name, rule) <= 1;
    let elsewhere = ELSEWHERE.into_iter().find(|(other, _)| has_none && *other == name).map(|(_, rule)| rule);
    RULES.into_iter().find(is_slip).or(elsewhere).filter(|_| !RULES.contains(&name))
}

/// An exemption from a policy that there is not would never count, and nobody would know.
fn unknown_exempted(policies: &[Policy], config: &Config) -> Vec<LoadError> {
    let known: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).chain(["*"]).collect();
    let exempted = config.exemptions.iter().flat_map(|one| one.policies.iter().map(move |name| (one.at, name)));
    exempted
        .filter(|(_, name)| !known.contains(&name.as_str()))
        .map(|(at, name)| {
            let message = yaml::unknown("there is no policy", name, &known);
            ConfigError::new(&config.origin.file, &config.origin.text, at, message)
        })
        .collect()
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Gives each policy its engine: the files that it needs, and the module through which surefoot asks it, so that helper
/// rules which its own share are evaluated once for a review.
fn compile(policies: &mut [Policy], modules: &[Module], references: &References) -> Result<(), Broken> {
    let mut library = Engine::new();
    for module in modules.iter().filter(|module| role(module) == Role::Library) {
        library.add(&module.file, &module.text)?;
    }
    for policy in policies {
        let package = policy.package();
        policy.engine = library.clone();
        let needed = gate::closure(references, vec!["surefoot".to_owned(), package.clone()]);
        let is_needed = |module: &&Module| matches!(role(module), Role::Policy(_)) && needed.contains(&module.package);
        for module in modules.iter().filter(is_needed) {
            policy.engine.add(&module.file, &module.text)?;
        }
        policy.engine.add(&format!("surefoot_entry/{package}.rego"), &policy.entry_module())?;
        policy.engine.prepare(&policy.verdict_rule())?;
    }
    Ok(())
}

fn entry(package: &str, rule: &str) -> String {
    format!("data.surefoot_entry.{package}.{rule}")
}

/// Names and texts of the files, and the configuration but for what only the controller reads.
fn digest(sources: &[Source], config: &Config) -> String {
    let mut configured = yaml::parse(&config.origin.text).map(|root| root.to_json()).unwrap_or_default();
    if let Some(members) = configured.as_object_mut() {
        members.retain(|key, value| !["apiVersion", "kind", "rollouts"].contains(&key.as_str()) && !value.is_null());
    }
    if configured.as_object().is_none_or(serde_json::Map::is_empty) {
        configured = serde_json::Value::Null;
    }
    let configured = configured.to_string();
    let mut hash = Sha256::new();
    let mut sorted: Vec<&Source> = sources.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for part in sorted.iter().flat_map(|source| [&source.path, &source.text]).chain([&configured]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn text_of<'a>(sources: &'a [Source], file: &str) -> &'a str {
    sources.iter().find(|source| source.path == file).map_or("", |source| &source.text)
}

pub(super) fn located(broken: Broken, sources: &[Source]) -> LoadError {
    let at = Position { line: broken.line, column: broken.column };
    ConfigError::new(&broken.file, text_of(sources, &broken.file), at, broken.message)
}

fn no_place(message: &str) -> LoadError {
    ConfigError::new("", "", Position::default(), message)
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};

    /// `file:line:column message` of everything that is wrong.
    fn wrong(files: &[(&str, &str)], configured: &str) -> Vec<String> {
        match PolicySet::load(sources(files), &config(configured)) {
            Ok(_) => Vec::new(),
            Err(LoadErrors(errors)) => errors
                .iter()
                .map(|error| format!("{}:{}:{} {}", error.file, error.line, error.column, error.message))
                .collect(),
        }
    }

    #[test]
    fn the_built_in_set_loads_and_passes_its_own_tests() {
        let sources = PolicySet::built_in_sources();
        let set = PolicySet::load(sources.clone(), &Config::default()).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(set.policies().len() >= 6);
        for policy in set.policies() {
            assert!(!policy.metadata.title.is_empty(), "{} has no title", policy.name);
        }
        let failed: Vec<_> =
            crate::admission::run_tests(&sources).unwrap().into_iter().filter(|test| test.failed.is_some()).collect();
        assert_eq!(failed, []);
    }

    #[test]
    fn a_set_knows_its_policies_and_parameters() {
        let set = PolicySet::load(standard(), &Config::default()).unwrap();
        let names: Vec<&str> = set.policies().iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(names, ["canary-cap", "probes"]);
        assert_eq!(set.policies()[0].parameters, BTreeMap::from([("cap".to_owned(), Json::from(2))]));
        assert_eq!((set.policies()[1].file.as_str(), set.digest().len()), ("probes/policy.rego", 12));
        let reversed: Vec<Source> = standard().into_iter().rev().collect();
        assert_eq!(PolicySet::load(reversed, &Config::default()).unwrap().digest(), set.digest());
    }

    #[test]
    fn a_policy_has_what_it_refers_to_however_far() {
        let files = [
            ("lib/lib.rego", "package surefoot.lib\n\nthird := data.surefoot.c.warn\n"),
            (
                "a/policy.rego",
                "package surefoot.a\n\nimport data.surefoot.b\n\ndeny contains b.f(x) if some x in b.warn\n",
            ),
            (
                "b/policy.rego",
                "package surefoot.b\n\nimport data.surefoot.lib\n\nwarn contains x if some x in lib.third | g\n",
            ),
            ("b/more.rego", "package surefoot.b\n\ng := {\"g\"}\n\nf(x) := upper(x)\n"),
            (
                "c/policy.rego",
                "package surefoot.c\n\nwarn contains \"c\" if data.surefoot[\"d\"].h with data.surefoot.d.i as 7\n",
            ),
            ("d/policy.rego", "package surefoot.d\n\nwarn contains \"d\"\n\nh if i == 7\n\ni := 1\n"),
        ];
        let set = PolicySet::load(sources(&files), &Config::default()).unwrap_or_else(|errors| panic!("{errors}"));
        for (policy, wanted) in [("a", r#"{"deny":["C","G"]}"#), ("c", r#"{"warn":["c"]}"#), ("d", r#"{"warn":["d"]}"#)]
        {
            let given = set.ask(policy, &Json::new_object(), LIMIT).map(|given| given.map(|given| given.to_string()));
            assert_eq!(given, Some(Ok(wanted.to_owned())), "{policy}");
        }
    }

    #[test]
    fn a_package_in_several_files_is_one() {
        const NEGATED: &str = "bad if not good\n\ngood if input.x\n";
        let asks = |package: &str| format!("package surefoot.a\n\nimport data.surefoot.{package} as one\n\n");
        let rows = [
            // (the other files, what the policy asks of them, what it says where `x` is true, and where it is not)
            (
                vec![("lib/a.rego", "lib", "n := 1"), ("lib/b.rego", "lib", NEGATED)],
                asks("lib") + "deny contains \"bad\" if one.bad\n\ndeny contains \"good\" if one.good\n",
                [r#"["good"]"#, r#"["bad"]"#],
            ),
            (
                vec![("lib/a.rego", "lib", "n := 1"), ("lib/sub/b.rego", "lib.sub", NEGATED)],
                asks("lib") + "deny contains \"bad\" if one.sub.bad\n\ndeny contains \"good\" if one.sub.good\n",
                [r#"["good"]"#, r#"["bad"]"#],
            ),
            (
                vec![
                    ("lib/a.rego", "lib", "n := 1"),
                    (
                        "lib/b.rego",
                        "lib",
                        "a.b := c\n\nc := \"c\" if input.x\n\nd[k] := e if some k in [\"d\"]\n\ne := c\n",
                    ),
                ],
                asks("lib") + "deny contains one.a.b\n\ndeny contains x if x := one.d.d\n",
                [r#"["c"]"#, "[]"],
            ),
            (
                vec![("b/a.rego", "b", "warn contains 1 if false"), ("b/b.rego", "b", NEGATED)],
                asks("b") + "deny contains \"bad\" if one.bad\n",
                ["[]", r#"["bad"]"#],
            ),
            // Nothing is in it that the author did not write.
            (
                vec![("lib/a.rego", "lib", "n := 1"), ("lib/b.rego", "lib", NEGATED)],
                asks("lib") + "deny contains name if some name, _ in one\n",
                [r#"["good","n"]"#, r#"["bad","n"]"#],
            ),
        ];
        for (others, policy, wanted) in rows {
            let mut files = vec![Source { path: "a/policy.rego".to_owned(), text: policy }];
            files.extend(others.iter().map(|(path, package, body)| Source {
                path: (*path).to_owned(),
                text: format!("package surefoot.{package}\n\n{body}\n"),
            }));
            let set = PolicySet::load(files.clone(), &Config::default()).unwrap_or_else(|errors| panic!("{errors}"));
            for (x, wanted) in [true, false].into_iter().zip(wanted) {
                let given =
                    set.ask("a", &tree([("x", Json::from(x))]), LIMIT).map(|given| given.map(|it| it.to_string()));
                assert_eq!(given, Some(Ok(format!("{{\"deny\":{wanted}}}"))), "{files:?} {x}");
            }
        }
    }

    #[test]
    fn the_tests_of_a_package_in_several_files_see_one() {
        let files = [
            ("a/a.rego", "package surefoot.a\n\nn := 1\n"),
            ("a/policy.rego", "package surefoot.a\n\ndeny contains \"x\" if not good\n\ngood if input.x\n"),
            (
                "a/policy_test.rego",
                "package surefoot.a_test\n\nimport data.surefoot.a\n\ntest_a if count(a.deny) == 0 with input as {\"x\": true}\n",
            ),
        ];
        let loaded = PolicySet::load_tested(sources(&files), &Config::default(), &Arc::default());
        loaded.unwrap_or_else(|errors| panic!("{errors}"));
    }

    #[test]
    fn a_digest_tells_what_verdicts_are_made_by() {
        let digest =
            |sources: Vec<Source>, text: &str| PolicySet::load(sources, &config(text)).unwrap().digest().to_owned();
        let plain = digest(standard(), "");
        let mut tested = standard();
        let text = "package surefoot.probes_test\ntest_x if true\n".to_owned();
        tested.push(Source { path: "probes/policy_test.rego".to_owned(), text });
        assert_eq!(digest(tested, ""), plain, "tests decide nothing");
        assert_eq!(PolicySet::load(standard(), &Config::default()).unwrap().digest(), plain);
        for same in ["rollouts: {bake: 1h}", "# only a comment", "policies:", "exemptions:"] {
            assert_eq!(digest(standard(), same), plain, "{same}");
        }
        let one = digest(standard(), "policies: {probes: {action: Warn}, canary-cap: {parameters: {cap: 3}}}");
        let other = "policies:\n  canary-cap: {parameters: {cap: 3}}\n  probes:\n    action: \"Warn\" # why\n";
        assert_eq!(digest(standard(), other), one, "the same in other words");
        let exempt = "exemptions: [{policies: [probes], namespace: a, name: b, reason: c, until: 2030-01-01}]";
        let mut edited = standard();
        edited[1].text.push('\n');
        let all = [plain, one, digest(standard(), exempt), digest(edited, "")];
        assert_eq!(BTreeSet::from_iter(&all).len(), all.len());
    }

    #[test]
    fn a_set_whose_tests_fail_is_refused_with_their_places() {
        let with = |test: &str| {
            let mut sources = standard();
            let text = format!("package surefoot.probes_test\n\n{test}\n");
            sources.push(Source { path: "probes/policy_test.rego".to_owned(), text });
            PolicySet::load_tested(sources, &Config::default(), &Arc::default()).map_err(|errors| errors.to_string())
        };
        with("test_good if true").unwrap();
        let told = with("test_good if true\ntest_bad if 1 == 2\ntest_broken if 1 / 0 == 1").unwrap_err();
        let begins = "probes/policy_test.rego:4:1: test data.surefoot.probes_test.test_bad failed: did not hold; ";
        assert!(told.starts_with(begins), "{told}");
        assert!(
            told.contains("probes/policy_test.rego:5:18: test data.surefoot.probes_test.test_broken failed"),
            "{told}"
        );
        assert!(told.contains("\n  4 | test_bad if 1 == 2\n"), "{told}");
    }

    #[test]
    fn what_is_no_policy_set_is_named_with_its_place() {
        const OK: &str = "package surefoot.p\ndeny contains \"x\" if input.x\n";
        let rows: [(&[(&str, &str)], &str); 21] = [
            (
                &[("p/policy.rego", "package surefoot.p\nviolation contains \"x\"\n")],
                "p/policy.rego:2:1 nobody asks for `violation`; did you mean `deny`?",
            ),
            (
                &[("p/policy.rego", "package surefoot.p\ndeny_gpu := {\"x\"}\n")],
                "p/policy.rego:2:1 nobody asks for `deny_gpu`; did you mean `deny`?",
            ),
            (
                &[("p/policy.rego", "package surefoot.p\ndney contains \"x\"\n")],
                "p/policy.rego:2:1 nobody asks for `dney`; did you mean `deny`?",
            ),
            (
                &[("p/policy.rego", OK), ("p/policy_test.rego", "package surefoot.p\nwarn contains \"x\"\n")],
                "p/policy_test.rego:2:1 `warn` in a file of tests",
            ),
            (&[], ":0:0 no policy: none of the files has a package `surefoot.NAME`"),
            (&[("README.md", "hello")], ":0:0 no policy"),
            (&[("p/policy.rego", "")], "p/policy.rego:1:1 "),
            (&[("p/policy.rego", "package surefoot.p\ndeny contains")], "p/policy.rego:2:"),
            (
                &[("p/policy.rego", "package surefoot.p\nhelper := 1\n")],
                "p/policy.rego:0:0 this policy has no `deny`, no `warn` and no `defaults`",
            ),
            (&[("p/policy.rego", "package surefoot.p\ndeny := {\"x\"}\n")], "p/policy.rego:2:1 `deny` must be a set"),
            (
                &[("p/policy.rego", "package surefoot.p\ndefaults := []\n")],
                "p/policy.rego:2:1 `defaults` must be a set",
            ),
            (
                &[("p/policy.rego", "package main\ndeny contains \"x\"\n")],
                "p/policy.rego:1:1 nobody would ask package `main`",
            ),
            (
                &[("p/policy.rego", OK), ("x.rego", "package surefoot_entry.p\nverdict := {}\n")],
                "x.rego:1:1 nobody would ask",
            ),
            (
                &[("p/policy.rego", OK), ("q/policy.rego", OK)],
                "q/policy.rego:1:1 package `surefoot.p` is already in p/policy.rego",
            ),
            (
                &[("p/policy.rego", "# METADATA\n# titel: x\npackage surefoot.p\ndeny contains \"x\"\n")],
                "p/policy.rego:2:3 METADATA has no field `titel`; did you mean `title`?",
            ),
            (
                &[("p/policy.rego", "package surefoot.p\ndeny contains \"x\"\nparams := 7\n")],
                "p/policy.rego:3:1 `params` must give an object",
            ),
            (
                &[("p/policy.rego", "package surefoot.p\ndeny contains \"x\"\nparams := {\"a\": input.b}\n")],
                "p/policy.rego:3:1 `params` must give an object on an empty input",
            ),
            (
                &[("p/policy.rego", "package surefoot.p\ndeny contains \"x\"\nparams := {\"a\": 1 / 0}\n")],
                "p/policy.rego:3:19 divide by zero",
            ),
            (
                &[
                    (
                        "lib/lib.rego",
                        "package surefoot.lib\nparams(defaults) := object.union(defaults, input.parameters)\n",
                    ),
                    (
                        "p/policy.rego",
                        "package surefoot.p\nimport data.surefoot.lib\ndeny contains \"x\"\nparams := lib.params({\"percent\"})\n",
                    ),
                ],
                "p/policy.rego:4:1 `params` on an empty input breaks at lib/lib.rego:2:33: `object.union` expects object",
            ),
            (
                &[(
                    "p/policy.rego",
                    "# METADATA\n# custom: {parameters: {percnt: {minimum: 1}}}\npackage surefoot.p\ndeny contains \"x\"\nparams := {\"percent\": 5}\n",
                )],
                "p/policy.rego:2:25 `params` has no parameter `percnt`; did you mean `percent`?",
            ),
            (
                &[(
                    "p/policy.rego",
                    "# METADATA\n# custom: {parameters: {percent: {minimum: 9}}}\npackage surefoot.p\ndeny contains \"x\"\nparams := {\"percent\": 5}\n",
                )],
                "p/policy.rego:2:25 the default of `percent` must be at least 9",
            ),
        ];
        for (files, message) in rows {
            let wrong = wrong(files, "");
            assert!(wrong.len() == 1 && wrong[0].starts_with(message), "{files:?}: {wrong:?}");
        }
    }

    #[test]
    fn each_file_is_named_at_once() {
        let wrong = wrong(&[("a/policy.rego", "package surefoot.a\ndeny contains"), ("b/policy.rego", "pakage b")], "");
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn a_configuration_that_does_not_fit_the_policies_is_named_with_its_place() {
        let rows = [
            ("policies: {probs: {}}", "config.yaml:3:12 there is no policy `probs`; did you mean `probes`?"),
            (
                "policies: {probes: {parameters: {ignoreContainer: []}}}",
                "config.yaml:3:34 policy probes has no parameter `ignoreContainer`; did you mean `ignoreContainers`?",
            ),
            (
                "policies: {probes: {parameters: {period: often}}}",
                "config.yaml:3:34 `period` must be a number such as 5, not text",
            ),
            (
                "policies: {probes: {parameters: {ignoreContainers: model}}}",
                "config.yaml:3:34 `ignoreContainers` must be a list such as [], not text",
            ),
            ("policies: {canary-cap: {parameters: {cap: 11}}}", "config.yaml:3:38 `cap` must be at most 10"),
            (
                "policies:\n  canary-cap:\n    overrides:\n    - {namespaces: {matchLabels: {a: b}}, parameters: {cap: 0}}",
                "config.yaml:6:56 `cap` must be at least 1",
            ),
        ];
        for (configured, message) in rows {
            let files: Vec<Source> = standard();
            let files: Vec<(&str, &str)> = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
            assert_eq!(wrong(&files, configured), [message]);
        }
    }

    #[test]
    fn a_value_that_breaks_its_policy_is_named_with_its_place() {
        let rows = [
            (
                "images: {parameters: {ignoreContainers: ['{']}}",
                "config.yaml:3:34 with this value of `ignoreContainers` policy images",
            ),
            ("resources: {parameters: {require: [7]}}", "config.yaml:3:37 `require` must hold texts that match"),
            (
                "canary-cap: {overrides: [{namespaces: {matchLabels: {a: b}}, parameters: {minimum: 1.5}}]}",
                "config.yaml:3:86 ",
            ),
            (
                "images: {parameters: {ignoreContainers: [7, 'x*']}}",
                "config.yaml:3:34 `ignoreContainers` must hold texts that match ^[^ ]+$, not 7",
            ),
            ("images: {parameters: {ignoreContainers: ['x*']}}", ""),
        ];
        for (configured, message) in rows {
            let configured = config(&format!("policies: {{{configured}}}"));
            let loaded = PolicySet::load(PolicySet::built_in_sources(), &configured).map(|_| ());
            let told = loaded.map_or_else(
                |LoadErrors(errors)| {
                    assert_eq!(errors.len(), 1, "{errors:?}");
                    format!("{}:{}:{} {}", errors[0].file, errors[0].line, errors[0].column, errors[0].message)
                },
                |()| String::new(),
            );
            assert!(told.starts_with(message) && told.is_empty() == message.is_empty(), "{told}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_told_from_top_to_bottom() {
        let all = |configured: &str| -> Vec<String> {
            let files: Vec<Source> = standard();
            let files: Vec<(&str, &str)> = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
            let places =
                wrong(&files, configured).into_iter().map(|told| told.split(' ').next().unwrap_or("").to_owned());
            places.collect()
        };
        let unknown = "exemptions: [{policies: [prob], namespace: a, name: b, reason: c, until: 2030-01-01}]\n\
            policies:\n  zebra: {}\n  ant: {}\n";
        assert_eq!(all(unknown), ["config.yaml:3:25", "config.yaml:5:3", "config.yaml:6:3"]);
        let wrong = "policies:\n  probes:\n    parameters:\n      period: often\n      period2: 1\n      ignoreContainers: 7\n  \
            canary-cap: {parameters: {cap: 11}}\n";
        let places = ["config.yaml:6:7", "config.yaml:7:7", "config.yaml:8:7", "config.yaml:9:29"];
        assert_eq!(all(wrong), places);
    }

    #[test]
    fn an_error_shows_its_line() {
        let errors = PolicySet::load(
            sources(&[("p/policy.rego", "package surefoot.p\ndeny contains \"x\" if y\n")]),
            &Config::default(),
        );
        assert_eq!(
            errors.unwrap_err().to_string(),
            "p/policy.rego:2:22: `y` is not defined\n  2 | deny contains \"x\" if y\n    |                      ^"
        );
    }
}
