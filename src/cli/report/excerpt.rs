//! A line of a file, with carets under a place in it.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Snippet};

use super::shown;
use crate::cli::source::{File, tree::Place};

/// Columns that are shown before a place, and behind its beginning, where the line has more.
const BEFORE: usize = 60;
const BEHIND: usize = 70;
/// What is underlined where nothing says how long it is: the whole of a one-line file says nothing, its beginning does.
const UNDERLINED: usize = 40;

/// One line of the file with carets under `place`, and `label` beside them.
pub(super) fn of(file: &File, place: Place, label: String) -> Snippet<'_, Annotation<'_>> {
    let line = file.line(place.line);
    let (text, caret) = window(line, marked(line, place));
    let caret = AnnotationKind::Primary.span(caret);
    let caret = if label.is_empty() { caret } else { caret.label(label) };
    Snippet::source(text).path(shown::line(&file.name)).line_start(place.line).annotation(caret)
}

/// What is underlined, in bytes.
fn marked(line: &str, place: Place) -> Range<usize> {
    let start = at(line, 0, place.column.saturating_sub(1));
    let end = match place.length {
        Some(length) => at(line, start, length),
        None => {
            let rest = &line[start..at(line, start, UNDERLINED)];
            start + rest.split(" #").next().unwrap_or_default().trim_end().len()
        }
    };
    start..end.max(start)
}

/// The part of the line around what is marked, and where the mark is in that. A file may be one line of megabytes, and
/// have thousands of findings in it.
fn window(line: &str, marked: Range<usize>) -> (String, Range<usize>) {
    let before = line[..marked.start].char_indices().rev().nth(BEFORE - 1);
    // A few more cost nothing where the line begins there.
    let from = before.map(|(byte, _)| byte).filter(|byte| *byte > 3).unwrap_or(0);
    let to = at(line, marked.start, BEHIND);
    let end = marked.end.min(to);
    // What an old runner takes for a command is broken up by a space that has no width.
    let part = |range: Range<usize>| line[range].replace(shown::OLD_COMMAND, "##\u{200b}[");
    let mut text = if from > 0 { "…".to_owned() } else { String::new() };
    text += &part(from..marked.start);
    let start = text.len();
    text += &part(marked.start..end);
    let caret = start..text.len();
    text += &part(end..to);
    if to < line.len() {
        text += "…";
    }
    (text, caret)
}

/// The byte that lies `chars` behind byte `from`.
fn at(line: &str, from: usize, chars: usize) -> usize {
    let rest = line.as_bytes().get(from..).unwrap_or_default();
    // What is ASCII so far need not be counted.
    match rest.get(..chars) {
        Some(near) if near.is_ascii() => from + chars,
        _ => line[from..].char_indices().nth(chars).map_or(line.len(), |(byte, _)| from + byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let long = |c: &str| format!("{}X: wrong{}", c.repeat(500), c.repeat(5000));
        let place = Place { line: 1, column: 504, length: Some(5) };
        for c in ["a", "ä", "𝄞"] {
            let line = long(c);
            let (text, caret) = window(&line, marked(&line, place));
            assert_eq!(&text[caret], "wrong");
            assert_eq!(text.chars().count(), BEFORE + BEHIND + 2, "{text}");
            assert!(text.starts_with('…') && text.ends_with('…'), "{text}");
        }
    }

    #[test]
    fn a_short_line_is_shown_whole() {
        let rows = [
            ("a: b # c", Place { line: 1, column: 1, length: None }, "a: b"),
            ("a: b # c", Place { line: 1, column: 4, length: Some(1) }, "b"),
            ("a: ä", Place { line: 1, column: 4, length: Some(1) }, "ä"),
            ("a", Place { line: 1, column: 40, length: Some(9) }, ""),
            ("", Place { line: 0, column: 0, length: None }, ""),
        ];
        for (line, place, expected) in rows {
            let (text, caret) = window(line, marked(line, place));
            assert_eq!((text.as_str(), &text[caret]), (line, expected));
        }
    }
}
