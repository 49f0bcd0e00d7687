//! What a person reads: a line for each policy, what failed and why, what was not reached, and one line that sums up.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

use super::run::{Covered, Row, Run};
use crate::{
    admission::{TestOutcome, testing::Shown},
    cli::plural,
};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const MIXED: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Columns of a line with the exit code at its right.
const WIDTH: usize = 90;
/// Of a value; -v shows it in full.
const VALUE: usize = 160;
/// Lines that a failed test printed; -v shows all.
const PRINTED: usize = 10;
/// Lines of a file that were not reached; -v shows all.
const MISSED: usize = 12;

/// What could not be run. For stderr.
pub(super) fn render_problems(run: &Run) -> String {
    run.problems().map(|problem| format!("{BAD}error{BAD:#}: {problem}\n")).collect()
}

/// The rest, with colours that the stream takes out again where they are not wanted.
pub(super) fn render(run: &Run, verbose: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_run(run, verbose, &mut text);
    text
}

fn write_run(run: &Run, verbose: bool, out: &mut String) -> fmt::Result {
    if verbose {
        write_all(run, out)?;
    }
    write_table(run, out)?;
    for test in run.tests().filter(|test| test.failed.is_some()) {
        write_failure(test, verbose, out)?;
    }
    for case in run.cases() {
        if let Some(failed) = &case.failed {
            writeln!(out, "{BAD}FAIL{BAD:#} {}\n     {failed}", case.file)?;
        }
    }
    for file in run.rows().flat_map(|(_, row)| &row.files) {
        write_missed(file, verbose, out)?;
    }
    for note in run.sets.iter().flat_map(|set| &set.notes) {
        writeln!(out, "{MIXED}note{MIXED:#}: {note}")?;
    }
    if run.tests().next().is_some() || run.cases().next().is_some() {
        write_verdict(run, out)?;
    }
    Ok(())
}

fn write_all(run: &Run, out: &mut String) -> fmt::Result {
    let names = run.tests().map(|test| &test.name).chain(run.cases().map(|case| &case.file));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    for test in run.tests() {
        let (word, style) = match (&test.failed, test.skipped) {
            (Some(_), _) => ("FAIL", BAD),
            (None, true) => ("skip", MIXED),
            (None, false) => ("ok", GOOD),
        };
        writeln!(out, "{style}{word:4}{style:#} {:width$}  {}", test.name, time(test.took))?;
        if test.failed.is_none() {
            test.prints.iter().try_for_each(|printed| writeln!(out, "     {printed}"))?;
        }
    }
    for case in run.cases() {
        let (word, style) = if case.failed.is_some() { ("FAIL", BAD) } else { ("ok", GOOD) };
        writeln!(out, "{style}{word:4}{style:#} {:width$}  {}", case.file, time(case.took))?;
    }
    out.push('\n');
    Ok(())
}

fn write_table(run: &Run, out: &mut String) -> fmt::Result {
    let rows: Vec<(&String, &Row)> = run.rows().filter(|(_, row)| !run.filtered || row.tests + row.cases > 0).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, row) in rows {
        let (style, covered) = match row.coverage() {
            Some(percent) if percent < 100.0 => (MIXED, percent_of(percent)),
            Some(percent) => (Style::new(), percent_of(percent)),
            None => (Style::new(), String::new()),
        };
        let (tests, cases) = (plural(row.tests, "test"), plural(row.cases, "case"));
        let line =
            format!("{name:width$}  {tests:>9}  {cases:>9}  {style}{covered:>6}{style:#}  {:>8}", time(row.took));
        writeln!(out, "{}{}", line.trim_end(), missed_of(row))?;
    }
    Ok(())
}

/// `   not reached: policy.rego:48-50, other.rego:3`
fn missed_of(row: &Row) -> String {
    let missed: Vec<String> = row
        .files
        .iter()
        .filter(|file| !file.coverage.missed.is_empty())
        .map(|file| format!("{}:{}", file.file.rsplit('/').next().unwrap_or_default(), spans(&file.coverage.missed)))
        .collect();
    if missed.is_empty() {
        String::new()
    } else {
        format!("   {DIM}not reached: {}{DIM:#}", shortened(&missed.join(", "), 60))
    }
}

/// `3, 48-50`
fn spans(lines: &BTreeSet<u32>) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match spans.last_mut() {
            Some((_, end)) if *end + 1 == *line => *end = *line,
            _ => spans.push((*line, *line)),
        }
    }
    let told = spans.iter().map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") });
    told.collect::<Vec<_>>().join(",")
}

fn write_failure(test: &TestOutcome, verbose: bool, out: &mut String) -> fmt::Result {
    let TestOutcome { name, file, line, column, failed, why, prints, .. } = test;
    writeln!(out, "{BAD}FAIL{BAD:#} {name}   {DIM}{file}:{line}:{column}{DIM:#}")?;
    match why {
        Some(why) => {
            let number = why.line.to_string();
            writeln!(out, "  {DIM}{number:>4} |{DIM:#} {}", cut(&why.text, verbose))?;
            for Shown { part, values } in &why.values {
                let values = if values.is_empty() { "undefined".to_owned() } else { values.join(", or ") };
                writeln!(out, "       {DIM}|{DIM:#}   {DIM}{part} ={DIM:#} {}", cut(&values, verbose))?;
            }
        }
        None => writeln!(out, "     {}", failed.as_deref().unwrap_or_default())?,
    }
    let shown = if verbose { prints.len() } else { PRINTED };
    for printed in prints.iter().take(shown) {
        writeln!(out, "     {DIM}printed{DIM:#} {}", cut(printed, verbose))?;
    }
    match prints.len().saturating_sub(shown) {
        0 => Ok(()),
        more => writeln!(out, "     {DIM}and {} more: -v{DIM:#}", plural(more, "line")),
    }
}

/// The same without colours.
pub(super) fn plain_failure(test: &TestOutcome) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_failure(test, true, &mut text);
    anstream::adapter::strip_str(&text).to_string()
}

fn write_missed(file: &Covered, verbose: bool, out: &mut String) -> fmt::Result {
    let missed = &file.coverage.missed;
    if missed.is_empty() {
        return Ok(());
    }
    writeln!(out, "{MIXED}not reached{MIXED:#} in {}", file.file)?;
    let shown = if verbose || missed.len() <= MISSED + 2 { missed.len() } else { MISSED };
    let mut last = None;
    for line in missed.iter().take(shown) {
        if last.is_some_and(|last| last + 1 < *line) {
            writeln!(out, "       {DIM}:{DIM:#}")?;
        }
        let source = file.text.lines().nth(*line as usize - 1).unwrap_or_default();
        writeln!(out, "  {DIM}{line:>4} |{DIM:#} {}", source.replace('\t', "    ").trim_end())?;
        last = Some(*line);
    }
    match missed.len() - shown {
        0 => Ok(()),
        more => writeln!(out, "       {DIM}and {} more: -v{DIM:#}", plural(more, "line")),
    }
}

/// The last line: what it comes to, and the exit code at the right.
fn write_verdict(run: &Run, out: &mut String) -> fmt::Result {
    let (tests, cases) = (run.tests().count(), run.cases().count());
    let mut parts = Vec::new();
    match run.failed() {
        0 => {
            let skipped = run.tests().filter(|test| test.skipped).count();
            parts.push(format!("{} and {} passed", plural(tests - skipped, "test"), plural(cases, "case")));
            parts.extend((skipped > 0).then(|| format!("{skipped} skipped")));
        }
        failed => parts.push(format!("{failed} of {} failed", tests + cases)),
    }
    if let Some(coverage) = run.coverage() {
        let wanted = run.min_coverage.filter(|_| run.too_little());
        let wanted = wanted.map(|least| format!(", wanted {}", percent_of(least))).unwrap_or_default();
        parts.push(format!("coverage {}{wanted}", percent_of(coverage)));
    }
    parts.push(time(run.took).trim_start().to_owned());
    let line = parts.join(", ");
    match run.outcome().code() {
        0 => writeln!(out, "{GOOD}{line}{GOOD:#}"),
        code => {
            let end = format!("exit code {code}");
            writeln!(out, "{BAD}{line:gap$}{BAD:#}{end}", gap = WIDTH.saturating_sub(end.len()).max(line.len() + 2))
        }
    }
}

/// Never rounded up to 100.
fn percent_of(percent: f64) -> String {
    let shown = percent.floor();
    if (percent - shown).abs() < f64::EPSILON || percent < 99.0 {
        format!("{shown} %")
    } else {
        format!("{:.1} %", (percent * 10.0).floor() / 10.0)
    }
}

fn time(took: Duration) -> String {
    match took.as_micros() {
        micros @ 0..1000 => format!("{micros} us"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

fn cut(text: &str, verbose: bool) -> String {
    if verbose { text.to_owned() } else { shortened(text, VALUE) }
}

fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
