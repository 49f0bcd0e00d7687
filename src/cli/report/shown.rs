//! Text that somebody else wrote, as a person may be shown it: a name in a manifest must not move the cursor, turn the
//! direction of writing, or begin a line that a GitHub runner takes for a command.

use std::borrow::Cow;

/// In one line: what does not print stands there as in a string literal.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) && !text.contains(OLD_COMMAND) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match is_unprintable(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect::<String>().replace(OLD_COMMAND, "##\\["))
}

/// The same for a text of several lines, such as a fix.
pub(super) fn lines(text: &str) -> String {
    let shown = text.split('\n').map(|one| {
        let one = line(one.strip_suffix('\r').unwrap_or(one));
        if one.trim_start().starts_with("::") { format!("\\{one}") } else { one.into_owned() }
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// A runner looks for these anywhere in a line.
pub(super) const OLD_COMMAND: &str = "##[";

fn is_unprintable(c: char) -> bool {
    // The marks of Unicode that are not seen and change what is: direction of writing, ends of lines, joiners.
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_seen() {
        let rows = [
            ("churn \u{e9} 100%", "churn \u{e9} 100%"),
            ("a\n::error::b\r\tc", "a\\n::error::b\\r\\tc"),
            ("\u{1b}[31mred\u{7}\u{9b}", "\\u{1b}[31mred\\u{7}\\u{9b}"),
            ("x\u{202e}y\u{200b}", "x\\u{202e}y\\u{200b}"),
            ("##[error]x", "##\\[error]x"),
        ];
        for (text, expected) in rows {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a:\r\n  ::error::b\n::c\u{1b}"), "a:\n\\  ::error::b\n\\::c\\u{1b}");
    }
}
