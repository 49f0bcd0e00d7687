//! Manifests: files, folders and standard input → the Kubernetes objects in them, with the place of every node.
//!
//! ```text
//!   FILE|DIR|- ──▶ texts ──▶ documents ──▶ objects (the items of a List one by one)
//!                    ├─────────┴──▶ problems: file, place, what to do
//!                    └──▶ passed over: what lies in a folder and is no manifest
//! ```
//!
//! A file that cannot be read or understood is a [`Problem`] and the others are judged all the same. What is absent on
//! purpose: any opinion about an object beyond its kind and name.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::template::{Json, json};

pub(super) mod decode;
mod fields;
mod folder;
mod objects;
mod probes;
mod resources;
pub(super) mod tree;
mod validity;

pub(super) use folder::{Passed, Why, notices};
use tree::{Document, Place, Places, SyntaxError};

/// What was found under the arguments.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    /// Every text that was read, in order.
    pub(super) files: Vec<File>,
    /// Every object in them, in order.
    pub(super) objects: Vec<Object>,
    /// What could not be read or understood.
    pub(super) problems: Vec<Problem>,
    /// What lies in the folders and is no manifest.
    pub(super) passed: Vec<Passed>,
    home: Rc<str>,
}

/// A text that was read.
#[derive(Debug)]
pub(super) struct File {
    /// As the user would name it.
    pub(super) name: String,
    /// Empty for what was read from a live cluster.
    text: String,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl File {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        let mut lines = vec![if text.starts_with('\u{feff}') { 3 } else { 0 }];
        lines.extend(text.match_indices('\n').map(|(end, _)| end + 1));
        Self { name, text, lines }
    }

    /// What stands for a live cluster among the files.
    pub(super) fn cluster() -> Self {
        Self::new("cluster", "")
    }

    /// A line, from 1; empty where there is none.
    pub(super) fn line(&self, number: usize) -> &str {
        let start = |number: usize| self.lines.get(number).copied();
        let Some(from) = number.checked_sub(1).and_then(start) else { return "" };
        let line = &self.text[from..start(number).unwrap_or(self.text.len())];
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.text.is_empty() && self.name == "cluster"
    }
}

/// A Kubernetes object in a file.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Index into [`Manifests::files`].
    pub(super) file: usize,
    /// The how-manieth object of its file, from 0.
    pub(super) index: usize,
    pub(super) kind: String,
    pub(super) value: Json,
    pub(super) places: Places,
    /// The namespace that it goes to where it names none itself.
    pub(super) home: Rc<str>,
}

impl Object {
    /// Its namespace.
    pub(super) fn namespace(&self) -> &str {
        json::str_at(&self.value, &["metadata", "namespace"]).filter(|name| !name.is_empty()).unwrap_or(&self.home)
    }

    /// Its name, or what its name begins with.
    pub(super) fn name(&self) -> &str {
        let metadata = |key| json::str_at(&self.value, &["metadata", key]);
        metadata("name").or_else(|| metadata("generateName")).unwrap_or("")
    }

    pub(super) fn is_deployment(&self) -> bool {
        // Other groups may have a kind of that name; these are the ones in which Kubernetes ever served its own.
        const GROUPS: [&str; 4] = ["apps/", "extensions/", "v1", ""];
        let version = json::str_at(&self.value, &["apiVersion"]).unwrap_or("");
        self.kind == "Deployment"
            && GROUPS
                .iter()
                .any(|group| if group.ends_with('/') { version.starts_with(group) } else { version == *group })
    }
}

/// A file that could not be read or understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) file: String,
    /// `None` where the whole file is meant.
    pub(super) place: Option<Place>,
    /// One sentence, with the way out.
    pub(super) message: String,
}

/// More than any manifest, or any recording of reviews, is long: what is larger was given by mistake.
const MAX_FILE: u64 = 64 << 20;

/// Reads everything that the arguments name; `-` is `stdin`. What names no namespace goes to `home`.
pub(super) fn read(paths: &[PathBuf], stdin: &mut dyn io::Read, home: &str) -> Manifests {
    let mut found = Manifests { home: home.into(), ..Manifests::default() };
    // What is given twice is there once; standard input would be empty the second time.
    let mut seen = BTreeSet::new();
    for path in paths.iter().filter(|path| seen.insert(path.as_path())) {
        if path.as_os_str() == "-" {
            found.add("<stdin>".to_owned(), bounded(stdin), Named::ByTheUser);
        } else if path.is_dir() {
            found.add_folder(path);
        } else {
            found.add_file(path, Named::ByTheUser);
        }
    }
    found
}

/// Everything that `source` has, unless that is more than any manifest.
fn bounded(source: &mut dyn io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// A file that the user named must hold manifests; one that lies in a folder may be something else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    ByTheUser,
    ByItsFolder,
}

impl Manifests {
    /// Every namespace that a Deployment or a review among them is in.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let of = |object: &Object| match object.kind.as_str() {
            "AdmissionReview" => json::str_at(&object.value, &["request", "namespace"]).map(str::to_owned),
            _ => object.is_deployment().then(|| object.namespace().to_owned()),
        };
        self.objects.iter().filter_map(of).collect()
    }

    fn add_folder(&mut self, folder: &Path) {
        let mut files = BTreeSet::new();
        self.walk(folder, &mut files);
        if files.is_empty() && self.problems.is_empty() {
            self.problem(folder.display().to_string(), None, "no *.yaml, *.yml or *.json in this folder or below it");
        }
        for file in files {
            self.add_file(&file, Named::ByItsFolder);
        }
    }

    fn add_file(&mut self, path: &Path, named: Named) {
        let read = fs::File::open(path).and_then(|mut file| bounded(&mut file));
        self.add(path.display().to_string(), read, named);
    }

    /// Collects manifests below `folder`. Hidden entries are left out, links to folders are not followed, and what is no
    /// file (a pipe would never end) is passed over.
    fn walk(&mut self, folder: &Path, files: &mut BTreeSet<PathBuf>) {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let way_out = "may not be read: permission denied; what is below it was not judged: chmod u+rx, or name the folders beside it";
                return self.problem(folder.display().to_string(), None, way_out);
            }
            Err(error) => return self.problem(folder.display().to_string(), None, cannot_read(&error)),
        };
        for entry in entries {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&path, files);
            } else if is_manifest(&path) && fs::metadata(&path).map_or(true, |at| at.is_file()) {
                files.insert(path);
            }
        }
    }

    fn add(&mut self, name: String, bytes: io::Result<Vec<u8>>, named: Named) {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.problem(name, None, cannot_read(&error)),
        };
        if named == Named::ByItsFolder && !folder::may_be_manifest(&bytes) {
            return self.passed.push(Passed { file: name, why: Why::NoObject });
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if named == Named::ByItsFolder && !folder::mentions_deployment(error.as_bytes()) => {
                return self.passed.push(Passed { file: name, why: Why::NoYaml });
            }
            Err(error) => {
                let (place, message) = not_utf8(&error);
                return self.problem(name, place, message);
            }
        };
        let documents = tree::parse(&text);
        let passed = match named {
            Named::ByTheUser => None,
            Named::ByItsFolder => folder::passed_over(Path::new(&name), &text, &documents),
        };
        if let Some(why) = passed {
            return self.passed.push(Passed { file: name, why });
        }
        self.files.push(File::new(name, text));
        self.add_documents(documents);
    }

    /// Sorts out what the newest file holds.
    fn add_documents(&mut self, documents: Result<Vec<Document>, SyntaxError>) {
        let name = self.files.last().map(|file| file.name.clone()).unwrap_or_default();
        let documents = match documents {
            Ok(documents) => documents,
            Err(SyntaxError { place, message }) => return self.problem(name, place, message),
        };
        if documents.is_empty() {
            return self.problem(name, None, "empty: there is no Kubernetes object in it");
        }
        let mut index = 0;
        for document in documents {
            self.add_document(document, &mut index, &name);
        }
    }

    /// Every object of a document; one that is none does not hide the others.
    fn add_document(&mut self, document: Document, index: &mut usize, name: &str) {
        let Document { value, places } = document;
        for objects::Found { pointer, object } in objects::of(&value) {
            match object {
                Ok((kind, value)) => {
                    let places = if pointer.is_empty() { places.clone() } else { places.below(&pointer) };
                    let (file, home) = (self.files.len() - 1, Rc::clone(&self.home));
                    self.objects.push(Object { file, index: *index, kind, value, places, home });
                    *index += 1;
                }
                Err(message) => self.problem(name.to_owned(), Some(places.nearest(&pointer)), message),
            }
        }
    }

    fn problem(&mut self, file: String, place: Option<Place>, message: impl Into<String>) {
        self.problems.push(Problem { file, place, message: message.into() });
    }
}

/// Puts a member into an object; what is no object stays as it is.
pub(super) fn set(object: &mut Json, key: &str, value: Json) {
    if let Json::Object(members) = object {
        std::sync::Arc::make_mut(members).insert(Json::from(key), value);
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|wanted| end.eq_ignore_ascii_case(wanted)))
}

fn cannot_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "may not be read: permission denied; chmod u+r, or run this as its owner".to_owned()
        }
        io::ErrorKind::FileTooLarge => format!("larger than {} MiB: no manifest is; give it in parts", MAX_FILE >> 20),
        _ => format!("cannot be read: {error}"),
    }
}

/// Where the text stops being UTF-8, and what to do.
fn not_utf8(error: &std::string::FromUtf8Error) -> (Option<Place>, String) {
    let bytes = error.as_bytes();
    let good = &bytes[..error.utf8_error().valid_up_to()];
    let line_start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&good[line_start..]).chars().count() + 1;
    let message = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this is UTF-16; save it as UTF-8",
        _ => "not UTF-8 from here on; save it as UTF-8",
    };
    (Some(Place { line, column, length: None }), message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kind namespace/name @line #index` of each object, then the problems.
    fn summary(found: &Manifests) -> Vec<String> {
        let object = |object: &Object| {
            let line = object.places.nearest("").line;
            format!("{} {}/{} @{line} #{}", object.kind, object.namespace(), object.name(), object.index)
        };
        let problem = |problem: &Problem| match problem.place {
            Some(place) => format!("{}:{}: {}", place.line, place.column, problem.message),
            None => problem.message.clone(),
        };
        found.objects.iter().map(object).chain(found.problems.iter().map(problem)).collect()
    }

    fn from_stdin(mut text: &[u8]) -> Vec<String> {
        summary(&read(&["-".into()], &mut text, "default"))
    }

    #[test]
    fn objects_of_a_text() {
        let cases: [(&[u8], &[&str]); 9] = [
            (b"kind: A\nmetadata: {name: x, namespace: shop}\n---\nkind: B\n", &["A shop/x @1 #0", "B default/ @4 #1"]),
            (
                b"kind: List\nitems:\n- kind: A\n  metadata: {generateName: g-}\n- kind: B\n",
                &["A default/g- @3 #0", "B default/ @5 #1"],
            ),
            (b"kind: DeploymentList\nitems:\n- metadata: {name: x}\n", &["Deployment default/x @3 #0"]),
            (b"{\"kind\": \"A\"}", &["A default/ @1 #0"]),
            (b"# nothing\n", &["empty: there is no Kubernetes object in it"]),
            (b"- kind: A\n", &["1:1: not a Kubernetes object: it has no apiVersion and kind"]),
            (
                b"kind: A\n---\nb: 1\n",
                &["A default/ @1 #0", "3:1: not a Kubernetes object: it has no `kind`; write e.g. kind: Deployment"],
            ),
            (b"kind: A\nx: \"\xc3\xa4\xff\"\n", &["2:6: not UTF-8 from here on; save it as UTF-8"]),
            (b"\xff\xfea\0", &["1:1: this is UTF-16; save it as UTF-8"]),
        ];
        for (text, expected) in cases {
            assert_eq!(from_stdin(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn folders_are_read_in_order_and_through() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("b.yaml", "kind: B\n");
        write("a/deep/c.yml", "kind: C\n");
        write("a/x.json", "{\"kind\": \"X\"}");
        write("notes.md", "# no");
        write(".hidden/d.yaml", "kind: D\n");
        write(".e.yaml", "kind: E\n");
        write("values.yaml", "replicas: 2\n");
        write("empty.yaml", "");
        write("broken.yaml", "kind: Deployment\na: [\n");
        let found = read(&[folder.path().to_owned()], &mut io::empty(), "default");
        let kinds: Vec<_> = found.objects.iter().map(|object| object.kind.as_str()).collect();
        assert_eq!(kinds, ["C", "X", "B"]);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    }

    #[test]
    fn a_folder_without_manifests_and_a_file_that_is_not_there_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().to_owned(), folder.path().join("no.yaml")];
        let told = summary(&read(&paths, &mut io::empty(), "default"));
        assert_eq!(told, ["no *.yaml, *.yml or *.json in this folder or below it", "there is no such file or folder"]);
    }

    #[test]
    fn only_deployments_that_kubernetes_served_are_deployments() {
        for (version, expected) in [("apps/v1", true), ("extensions/v1beta1", true), ("apps.openshift.io/v1", false)] {
            let text = format!("apiVersion: {version}\nkind: Deployment\n");
            let found = read(&["-".into()], &mut text.as_bytes(), "default");
            assert_eq!(found.objects[0].is_deployment(), expected, "{version}");
        }
    }
}
