//! What `--help` says below the arguments: examples that can be copied, and exit codes.

/// Below the list of commands.
pub(super) const ALL: &str = "\
Exit codes, the same for all commands: 0 fine, 1 findings (refused, reverted), 2 could not do it.
`surefoot COMMAND --help` has examples; `-h` is shorter.";

pub(super) const CHECK: &str = "\
Examples:
  surefoot check churn.yaml                          before kubectl apply
  surefoot check k8s/ --config config.yaml           a folder, with the parameters of the cluster
  kustomize build overlays/prod | surefoot check -   what is made elsewhere; helm template likewise
  surefoot check k8s/ --diff                         with what defaults would add
  surefoot check k8s/ --cluster                      as applied there: its peers, its history
  surefoot check --cluster -n shop                   what enforce would refuse of what runs now
  surefoot check --cluster --baseline policies --policies mine   what an edit of policies changes
  surefoot check churn.yaml --show-input=probes | opa eval -I -d policies data.surefoot.probes.deny
  surefoot check k8s/ -o json | jq '.objects[] | select(.verdict == \"denied\") | .name'

Rights for --cluster: list deployments in the namespaces that are judged. To judge by everything: list namespaces, \
list configmaps in surefoot-system (records), list resourcequotas, limitranges and networkpolicies (isolation); the \
ClusterRole view is enough. What may not be read is said.

Exit codes:
  0  every Deployment would be admitted (there may be warnings); with --baseline: none is newly refused
  1  at least one would be refused; with --baseline: newly refused
  2  a file, a policy, the configuration or the cluster could not be read, or a policy broke;
     the rest was judged";

pub(super) const TEST: &str = "\
Examples:
  surefoot test                                    policies/, with the cases in tests/cases/
  surefoot test mine --watch                       while writing: again at each save
  surefoot test --run canary_cap_test              a part
  surefoot test mine --min-coverage 100 -o junit   in a pipeline

JSON, stable (fields may be added):
  {\"version\": 1, \"policies\": [{\"name\", \"tests\", \"cases\", \"coverage\", \"files\"}],
   \"tests\": [{\"name\", \"file\", \"line\", \"column\", \"outcome\", \"message\", \"why\", \"printed\"}],
   \"cases\": [{\"file\", \"policy\", \"outcome\", \"message\"}], \"coverage\", \"failed\", \"problems\"}
  outcome: passed, failed or skipped.

Exit codes:
  0  everything passed
  1  a test or case failed, or less is covered than --min-coverage
  2  the policies do not load (file:line:column says where), or there was nothing to run";

pub(super) const EXPLAIN: &str = "\
Examples:
  surefoot explain                          the policies that there are
  surefoot explain canary-cap               one, with its parameters and codes
  surefoot explain probes/no-readiness      a code of a message
  surefoot explain -o json                  all of it for scripts

Exit codes: 0 explained, 2 there is none of that name, or the policies do not load.";

pub(super) const SCHEMA: &str = "\
Example, for editors with the YAML language server:
  surefoot schema > config.schema.json
  and as first line of config.yaml: # yaml-language-server: $schema=config.schema.json

Exit codes: 0 printed, 2 the policies do not load.";

pub(super) const NEW: &str = "\
Example, from nothing to a verdict:
  surefoot new gpu-quota
  surefoot test --watch                                                         in a second window
  surefoot check --policies policies tests/cases/gpu-quota/deny.yaml

The policies in DIR stand in for the shipped ones; to keep those too, begin with a copy of them.
Exit codes: 0 written, 2 the name is no good, or something of that name is there already.";

pub(super) const BUNDLE: &str = "\
Examples:
  surefoot bundle policies/ | kubectl apply -f -
  surefoot bundle policies/ > policies.yaml        for a repository that a GitOps tool applies

The webhook reads it where the ConfigMap is mounted: surefoot webhook --policies /etc/surefoot/policies. A change of \
the ConfigMap is taken up without a restart. Keys are paths with two underscores for each slash \
(probes__policy.rego); --policies understands them, also for check and test.
A ConfigMap holds 1 MiB. Exit codes: 0 printed, 2 the policies do not load, a test failed, or they do not fit.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(surefoot completions bash)                                   in ~/.bashrc
  surefoot completions zsh > \"${fpath[1]}/_surefoot\"
  surefoot completions fish > ~/.config/fish/completions/surefoot.fish

As a plugin of kubectl: link the program as kubectl-surefoot somewhere in the PATH, then kubectl surefoot status -A.";

pub(super) const STATUS: &str = "\
Examples:
  surefoot status -A               every rollout in guarded namespaces
  surefoot status churn -n shop    one, with what happened to it
  surefoot status -A --watch       shown anew at each change; piped, a line for each change
  surefoot status churn -n shop --svg churn.svg    a picture: pods, probes, budget, decision
  surefoot status -A -o json       for scripts

JSON, stable (fields may be added):
  {\"version\": 1, \"rollouts\": [{\"namespace\", \"name\", \"version\", \"state\", \"failed\", \"budget\",
                                 \"since\", \"note\", \"guard\"}],
   \"isolation\": [{\"namespace\", \"findings\", \"unknown\"}]}
  state: progressing, baking, settled, failing, reverted, withdrawn, stalled, observed or paused.
  With NAME there is \"timeline\": [{\"at\", \"what\", \"detail\"}] too. With --watch each change is one of \"rollouts\" in a
  line, or {\"namespace\", \"name\", \"deleted\": true}.

Rights: get and list deployments in the namespace, get and list configmaps in surefoot-system; for what it says of \
isolation list resourcequotas, limitranges and networkpolicies; with -A list namespaces; \
with --watch to watch them, with --svg list replicasets and pods. The ClusterRole view is enough.
Exit codes: 0 shown, 2 could not ask the cluster.";

pub(super) const WAIT: &str = "\
Example, what a pipeline runs after kubectl apply (kubectl rollout status exits 0 after a revert):
  surefoot wait deploy/churn -n shop --for settled --timeout 15m

Rights: those of status, and watch.
Exit codes: 0 settled, 1 failed (reverted, withdrawn, or left as it is for a reason), 2 timed out, another pod \
template was applied meanwhile, or could not ask the cluster.";

pub(super) const OVERRIDE: &str = "\
Examples:
  surefoot override churn -n shop --for 2h --reason INC-1234     then apply again what was refused
  surefoot override churn -n shop --for 2h --reason INC-1234 --dry-run=server
  kubectl annotate deploy churn -n shop surefoot.dev/override-   ends it sooner

Until it ends, what policies or the quarantine would refuse of this Deployment is let through with a warning, and
surefoot only observes its rollout. A quarantined template that settles meanwhile is quarantined no longer.

Rights: override guards.surefoot.dev in the namespace (ClusterRole surefoot-override), get and patch deployments there.
Exit codes: 0 set, 2 it is no good, a right is missing, or the cluster could not be asked.";

pub(super) const REVERT: &str = "\
Examples:
  surefoot revert churn -n shop --reason INC-1234
  surefoot revert churn -n shop --dry-run=server     what it would do, and whether it is let through

What is put back is the last version that settled, and what it replaces is quarantined, as if it had spent its budget;
record, Event and denials say who wanted it so. It is refused for the reasons that hold for the controller: nothing has
settled, its ReplicaSet is gone, it runs already, the Deployment is paused, three reverts in 24 hours.
On a terminal it asks first, unless -y is given.

Rights: ClusterRole surefoot-revert in the namespace (get and patch deployments, get and list replicasets, create Events)
and Role surefoot-revert in surefoot-system (records).
Exit codes: 0 reverted, 1 there is nothing to revert to, it was refused or declined, 2 a right is missing or the cluster
could not be asked.";

pub(super) const DOCTOR: &str = "\
Examples:
  surefoot doctor                  after installing, before a staged adoption goes on, when something is odd
  surefoot doctor -o json          for scripts

ok: as it should be; note: worth knowing; skip: could not be looked at, and why; warn: somebody should look at it;
fail: something that surefoot promises does not hold. Behind the colon is what to do.

JSON, stable (fields may be added):
  {\"version\": 1, \"checks\": [{\"level\", \"area\", \"message\", \"fix\"}]}

Rights: those of an administrator; whatever is missing is said, and the rest is looked at.
Exit codes: 0 nothing to mend, 1 warn or fail, 2 nothing found but something could not be looked at, or no cluster.";

pub(super) const WEBHOOK: &str = "\
Example, outside of the cluster:
  surefoot certs certs
  surefoot webhook --listen 127.0.0.1:8443 --tls-cert certs/tls.crt --tls-key certs/tls.key
  surefoot manifests --url https://127.0.0.1:8443 --ca certs/ca.crt | kubectl apply -f -
  kubectl label namespace shop surefoot.dev/guard=enforce

Paths: /validate /mutate /scale (the API server asks), /healthz /readyz /metrics.
Exit codes: 0 ended by a signal after draining, 2 certificate, policies, configuration or cluster not usable.";

pub(super) const CONTROLLER: &str = "\
Example, outside of the cluster:
  surefoot controller --kubeconfig ~/.kube/config --config config.yaml

It acts in namespaces labelled surefoot.dev/guard=enforce, and only says what it would do in the other guarded ones. \
Run as many as you like: a Lease picks the one that acts.
Exit codes: 0 ended by a signal, 2 configuration or cluster not usable.";
