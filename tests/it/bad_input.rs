//! Configurations that nobody can use: the same for a command and for a server.

/// A policy that refuses Deployments called `one`, or what its parameter says.
pub(crate) const GOOD: &str = "\
# METADATA
# title: No such name
# custom:
#   parameters:
#     name: {description: what no Deployment is called}
package surefoot.names

deny contains finding if {
	input.request.object.metadata.name == params.name
	finding := {\"code\": \"name\", \"msg\": \"it is refused\", \"path\": \"/metadata/name\"}
}

params := object.union({\"name\": \"one\"}, object.get(input, \"parameters\", {}))
";

/// Each with what is said of it; the file is called `config.yaml`, and the policy is [`GOOD`].
pub(crate) fn configurations() -> Vec<(Vec<u8>, &'static str)> {
    let head = "apiVersion: surefoot.dev/v1\nkind: Config\n";
    let anchors: String = (1..9)
        .map(|level| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")))
        .collect();
    let rows = [
        (
            format!("{head}policies: {{}}\npolicies: {{}}\n"),
            "config.yaml:4:1: `policies` is there twice in one mapping: remove one of them",
        ),
        (format!("{head}policies:\n\tnames: {{}}\n"), "config.yaml:4:2: "),
        (format!("{head}policies:\n\tnames: {{}}\n"), "indent with blanks"),
        (
            format!("{head}a0: &a0 [x]\n{anchors}"),
            "with its anchors filled in this is too large or too deep; write it out",
        ),
        (format!("{head}policies: {{"), "config.yaml:3:11: unclosed bracket"),
        ("- 1\n".to_owned(), "config.yaml:1:1: the configuration must be a mapping"),
        (
            format!("{head}polices: {{}}\n"),
            "config.yaml:3:1: the configuration has no field `polices`; did you mean `policies`?",
        ),
        (
            format!("{head}policies: {{nams: {{}}}}\n"),
            "config.yaml:3:12: there is no policy `nams`; did you mean `names`?",
        ),
        (format!("{head}policies: {{names: {{parameters: {{nam: x}}}}}}\n"), "config.yaml:3:33: "),
        (format!("{head}policies: {{names: {{parameters: {{nam: x}}}}}}\n"), "did you mean `name`?"),
        (format!("{head}policies: {{names: {{parameters: {{name: 7}}}}}}\n"), "config.yaml:3:33: `name` must be text"),
    ];
    let latin = (b"kind: caf\xe9\n".to_vec(), "config.yaml:1:10: a byte that is no UTF-8; save the file as UTF-8");
    rows.into_iter().map(|(text, says)| (text.into_bytes(), says)).chain([latin]).collect()
}
