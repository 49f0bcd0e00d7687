//! A rollout as a picture: one SVG file that needs nothing else, readable on light and on dark ground.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use quick_xml::escape::escape;

use super::report::junit::clean;
use crate::rollout::{
    picture::{Health, Lane, Picture},
    record::Evidence,
    view::State,
};

const WIDTH: f64 = 960.0;
/// Names stand left of it.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 96.0;
const LANE: f64 = 22.0;
const BUDGET: f64 = 96.0;
/// Steps of the axis in seconds, so that at most eight are drawn.
const STEPS: [i64; 18] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400, 172_800, 604_800];

const STYLE: &str = "\
.g{--ground:#fff;--ink:#1b2129;--dim:#5c6773;--line:#dde2e8;--good:#2b8a4b;--bad:#d03434;--wait:#717d8a;--old:#58789a;--mark:#1f63c4}
@media (prefers-color-scheme:dark){.g{--ground:#14181d;--ink:#e8ecf1;--dim:#9aa6b3;--line:#2d343c;--good:#2f9150;\
--bad:#dd4a40;--wait:#59636e;--old:#58728c;--mark:#78aefc}}
.ground{fill:var(--ground)}text{font:12px ui-sans-serif,system-ui,'DejaVu Sans',sans-serif;fill:var(--ink)}
.title{font-size:17px;font-weight:600}.dim{fill:var(--dim)}.on{fill:#fff;font-size:11px}.line{stroke:var(--line)}
.ready{fill:var(--good)}.failing{fill:var(--bad)}.starting{fill:var(--wait)}.unknown{fill:var(--old)}
.mark{stroke:var(--mark);stroke-dasharray:3 3}.dot{fill:var(--mark)}.limit{stroke:var(--ink);stroke-dasharray:6 4}
.spent{fill:none;stroke:var(--bad);stroke-width:2}.end{stroke:var(--ink);stroke-width:2}";

/// The whole file.
pub(super) fn render(picture: &Picture) -> String {
    let axis = Axis { from: picture.from, to: picture.to };
    let lanes = picture.pods.len() as f64 * LANE + if picture.more_pods > 0 { LANE } else { 0.0 };
    let budget_top = TOP + lanes.max(LANE) + 22.0;
    let budget = picture.spent.as_ref().map_or(0.0, |_| BUDGET + 34.0);
    let marks_top = budget_top + budget;
    let height = marks_top + picture.moments.len() as f64 * 20.0 + 34.0;
    let bottom = height - 18.0;
    let mut body = String::new();
    head(&mut body, picture);
    ticks(&mut body, &axis, bottom);
    pods(&mut body, picture, &axis);
    if let Some(spent) = &picture.spent {
        chart(&mut body, spent, &axis, budget_top);
    }
    moments(&mut body, picture, &axis, marks_top);
    let title = text(&title(picture));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" class=\"g\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

/// From times to the width of the picture.
struct Axis {
    from: Timestamp,
    to: Timestamp,
}

impl Axis {
    fn x(&self, at: Timestamp) -> f64 {
        let span = self.to.duration_since(self.from).as_secs_f64().max(0.001);
        let part = at.duration_since(self.from).as_secs_f64() / span;
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    /// Round times, and how they are written.
    fn ticks(&self) -> impl Iterator<Item = (Timestamp, String)> {
        let (from, to) = (self.from.as_second(), self.to.as_second());
        let step = STEPS.into_iter().find(|step| (to - from) / step < 8).unwrap_or((to - from).max(8) / 8);
        let form = if step < 60 {
            "%T"
        } else if step < 86_400 {
            "%H:%M"
        } else {
            "%F"
        };
        let first = (from.div_euclid(step) + 1) * step;
        (0..9).map(move |tick| first + tick * step).take_while(move |second| *second <= to).filter_map(move |second| {
            let at = Timestamp::from_second(second).ok()?;
            Some((at, utc(at, form)))
        })
    }
}

fn head(body: &mut String, picture: &Picture) {
    let row = &picture.row;
    let _ = writeln!(body, "<text class=\"title\" x=\"20\" y=\"32\">{}</text>", text(&title(picture)));
    let spent = picture.spent.as_ref().map(Evidence::note);
    let note = [spent.as_deref().unwrap_or_default(), &row.note].into_iter().filter(|part| !part.is_empty());
    let _ = writeln!(
        body,
        "<text class=\"dim\" x=\"20\" y=\"54\">{}</text>",
        text(&cut(&note.collect::<Vec<_>>().join("; "), 140))
    );
}

fn title(picture: &Picture) -> String {
    let row = &picture.row;
    let version = row.version.as_deref().unwrap_or("a version without a label");
    match row.state {
        State::Reverted => {
            let back = picture.moments.iter().rev().find(|moment| moment.what.starts_with("reverted to"));
            let bad = row.note.split(' ').next().unwrap_or_default();
            match back {
                Some(back) => format!("{}/{}: {bad} {}", row.namespace, row.name, back.what),
                None => format!("{}/{}: {version} is back", row.namespace, row.name),
            }
        }
        state => format!("{}/{}: {version} {state}", row.namespace, row.name),
    }
}

fn ticks(body: &mut String, axis: &Axis, bottom: f64) {
    let day = utc(axis.from, "%F UTC");
    let _ = writeln!(body, "<text class=\"dim\" x=\"20\" y=\"{}\">{day}</text>", TOP - 12.0);
    for (at, label) in axis.ticks() {
        let x = axis.x(at);
        let _ = writeln!(
            body,
            "<line class=\"line\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
             <text class=\"dim\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
            TOP - 6.0,
            TOP - 12.0
        );
    }
}

fn pods(body: &mut String, picture: &Picture, axis: &Axis) {
    for (lane, nth) in picture.pods.iter().zip(0_u32..) {
        pod(body, lane, axis, TOP + f64::from(nth) * LANE);
    }
    let y = TOP + picture.pods.len() as f64 * LANE + 14.0;
    let rest = match (picture.pods.is_empty(), picture.more_pods) {
        (true, _) => "no pods are known".to_owned(),
        (false, 0) => return,
        (false, more) => format!("and {more} more"),
    };
    let _ = writeln!(body, "<text class=\"dim\" x=\"20\" y=\"{y}\">{rest}</text>");
}

fn pod(body: &mut String, lane: &Lane, axis: &Axis, y: f64) {
    let version = lane.version.as_deref().map(|version| format!("  {version}")).unwrap_or_default();
    let _ = writeln!(
        body,
        "<text x=\"20\" y=\"{:.1}\">{}</text>",
        y + 14.0,
        text(&cut(&format!("{}{version}", lane.name), 34))
    );
    for (from, to, health) in &lane.spans {
        let (x, end) = (axis.x(*from), axis.x(*to));
        let (class, word) = match health {
            Health::Starting => ("starting", "not ready yet"),
            Health::Ready => ("ready", "ready"),
            Health::Failing if lane.gone => ("failing", "failed, gone by now"),
            Health::Failing => ("failing", "not ready"),
            Health::Unknown => ("unknown", "earlier"),
        };
        let width = (end - x).max(2.0);
        let _ = write!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" rx=\"2\"><title>{word}</title></rect>",
            y + 3.0
        );
        // Where it has room: colour alone is not seen by all.
        let restarts = if lane.restarts > 0 && *health != Health::Unknown {
            format!(", {} restarts", lane.restarts)
        } else {
            String::new()
        };
        let word = format!("{word}{restarts}");
        if width > word.len() as f64 * 7.0 + 12.0 {
            let _ = write!(body, "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{word}</text>", x + 6.0, y + 14.0);
        }
        body.push('\n');
    }
    if let Some(ended) = lane.ended.filter(|ended| (axis.from..=axis.to).contains(ended)) {
        let x = axis.x(ended);
        let _ = writeln!(
            body,
            "<line class=\"end\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>a container ended</title></line>",
            y + 1.0,
            y + 19.0
        );
    }
}

/// Failures over time, and the line that they may not cross.
fn chart(body: &mut String, spent: &Evidence, axis: &Axis, top: f64) {
    let base = top + BUDGET;
    let most = f64::from(spent.failures.max(spent.budget).max(1)) * 1.15;
    let y = |count: f64| base - count / most * BUDGET;
    let (since, until) = (axis.x(spent.since), axis.x(spent.until));
    let (limit, reached) = (y(f64::from(spent.budget)), y(f64::from(spent.failures)));
    let anchor = if until > RIGHT - 110.0 { ("end", until - 6.0) } else { ("start", until + 6.0) };
    let _ = writeln!(
        body,
        "<text x=\"20\" y=\"{:.1}\">failures against budget</text>\
         <text class=\"dim\" x=\"20\" y=\"{:.1}\">of {} probe attempts</text>\
         <line class=\"line\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>\
         <line class=\"limit\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{limit:.1}\" y2=\"{limit:.1}\"/>\
         <text class=\"dim\" x=\"{LEFT}\" y=\"{:.1}\">budget {}</text>\
         <polyline class=\"spent\" points=\"{LEFT},{base:.1} {since:.1},{base:.1} {until:.1},{reached:.1}\"/>\
         <circle class=\"failing\" cx=\"{until:.1}\" cy=\"{reached:.1}\" r=\"4\"/>\
         <text text-anchor=\"{}\" x=\"{:.1}\" y=\"{:.1}\">{} failures</text>",
        top + 14.0,
        top + 30.0,
        spent.attempts,
        limit - 5.0,
        spent.budget,
        anchor.0,
        anchor.1,
        reached - 6.0,
        spent.failures,
    );
}

/// A line down from the pods for each moment, and its words below, each in a row of its own.
fn moments(body: &mut String, picture: &Picture, axis: &Axis, top: f64) {
    for (moment, nth) in picture.moments.iter().zip(0_u32..) {
        let (x, y) = (axis.x(moment.at), top + f64::from(nth) * 20.0 + 6.0);
        let words = format!("{} {}", utc(moment.at, "%T"), moment.what);
        let left_of_it = x > (LEFT + RIGHT) / 2.0;
        let (anchor, at) = if left_of_it { ("end", x - 8.0) } else { ("start", x + 8.0) };
        let _ = writeln!(
            body,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\"/>\
             <circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\
             <text text-anchor=\"{anchor}\" x=\"{at:.1}\" y=\"{:.1}\">{}<title>{}</title></text>",
            y + 4.0,
            text(&cut(&words, 70)),
            text(&moment.detail),
        );
    }
}

fn utc(at: Timestamp, form: &str) -> String {
    at.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

/// As it may stand in an XML text.
fn text(raw: &str) -> String {
    let line: String = raw.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    escape(clean(&line)).into_owned()
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rollout::{timeline::Moment, view::Row};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_357_267 + second).unwrap()
    }

    fn sample(message: &str) -> Picture {
        let spent = json!({"failures": 12, "attempts": 30, "budget": 10, "since": at(15), "until": at(41),
            "container": "model", "signal": "readiness", "message": message});
        let moment = |second: i64, what: &str, detail: &str| Moment {
            at: at(second),
            what: what.to_owned(),
            detail: detail.to_owned(),
        };
        let lane = |name: &str, version: &str, restarts, ended, spans: &[(i64, i64, Health)]| Lane {
            name: name.to_owned(),
            version: (!version.is_empty()).then(|| version.to_owned()),
            gone: version.is_empty(),
            restarts,
            ended,
            spans: spans.iter().map(|(from, to, health)| (at(*from), at(*to), *health)).collect(),
        };
        Picture {
            row: Row {
                namespace: "shop".into(),
                name: "churn".into(),
                version: Some("2.3.1".into()),
                state: State::Reverted,
                failed: Some(12),
                budget: Some(10),
                since: Some(at(41)),
                note: "2.4.0 quarantined".into(),
            },
            from: at(-2),
            to: at(46),
            moments: vec![
                moment(0, "rollout of 2.4.0", "churn-7d9f4c"),
                moment(15, "first failure", message),
                moment(41, "budget spent", "[##########] 12/10"),
                moment(41, "reverted to 2.3.1", "2.4.0 failed 12 of 30 probes in 26 s"),
            ],
            spent: Some(serde_json::from_value(spent).unwrap()),
            pods: vec![
                lane("churn-7d9f4c-x2x8p", "", 0, None, &[(15, 41, Health::Failing)]),
                lane(
                    "churn-7d9f4c-k4k9q",
                    "2.4.0",
                    3,
                    Some(at(30)),
                    &[(3, 30, Health::Unknown), (30, 46, Health::Failing)],
                ),
                lane("churn-5c8b9d-aaaaa", "2.3.1", 0, None, &[(-2, 46, Health::Ready)]),
                lane("churn-5c8b9d-bbbbb", "2.3.1", 0, None, &[(42, 46, Health::Starting)]),
            ],
            more_pods: 2,
        }
    }

    #[test]
    fn what_is_drawn_is_one_file_that_any_reader_of_xml_takes() {
        let hostile = "</text><script>alert(1)</script> & \"'\u{1b}[31m\u{0}";
        let mut picture = sample(hostile);
        picture.row.version = Some("<b>".into());
        picture.pods[0].name = hostile.into();
        picture.pods.push(picture.pods[0].clone());
        for drawn in [render(&sample("HTTP 503")), render(&picture)] {
            let document = roxmltree::Document::parse(&drawn).unwrap();
            let elements = document.descendants().filter(|node| node.is_element());
            let known = ["svg", "title", "style", "rect", "text", "line", "circle", "polyline"];
            assert!(elements.clone().all(|node| known.contains(&node.tag_name().name())), "{drawn}");
            // Nothing is fetched, nothing runs.
            let attributes = elements.flat_map(|node| node.attributes()).map(|attribute| attribute.name());
            assert!(attributes.clone().all(|name| !name.starts_with("on") && !name.contains("href")), "{drawn}");
            assert!(!drawn.contains("url(") && !drawn.contains("@import"), "{drawn}");
        }
        let texts = render(&sample("HTTP 503"));
        for want in [
            "shop/churn: 2.4.0 reverted to 2.3.1",
            "12 of 30 probes failed in 26 s",
            "budget 10",
            "12 failures",
            "churn-7d9f4c-k4k9q  2.4.0",
            "and 2 more",
            "14:21:48 reverted to 2.3.1",
            "prefers-color-scheme:dark",
        ] {
            assert!(texts.contains(want), "no {want:?} in {texts}");
        }
    }

    #[test]
    fn an_axis_has_a_few_round_times() {
        for (span, first, most) in
            [(0, "14:21:08", 8), (40, "14:21:10", 8), (3600, "14:30", 8), (900_000, "2026-11-23", 8)]
        {
            let axis = Axis { from: at(0), to: at(span.max(1)) };
            let ticks: Vec<_> = axis.ticks().map(|(_, label)| label).collect();
            assert!((1..=most).contains(&ticks.len()) && ticks[0] == first, "{span}: {ticks:?}");
        }
    }
}
