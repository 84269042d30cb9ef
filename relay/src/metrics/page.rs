//! The text of OpenMetrics 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::fmt::Write;

/// What the page is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, until the process starts anew.
    Counter,
    /// As it is now.
    Gauge,
}

/// A page while it grows.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A family: its name, without `sotto_` and `_total`, and all its values,
    /// each with its labels. One without values is left out.
    pub fn family<'a, V>(&mut self, name: &str, kind: Kind, help: &str, values: V)
    where
        V: IntoIterator<Item = (Vec<(&'static str, &'a str)>, u64)>,
    {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let (word, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# TYPE sotto_{name} {word}");
        let _ = writeln!(self.0, "# HELP sotto_{name} {help}");
        for (labels, value) in values {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(self.0, "sotto_{name}{suffix}{labels} {value}");
        }
    }

    /// A family of one value without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    /// The whole page.
    pub fn end(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

fn escaped(value: &str) -> String {
    let backslashes = value.replace('\\', "\\\\").replace('"', "\\\"");
    backslashes.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_breaks_out_of_its_label() {
        let mut page = Page::default();
        let hostile = "a\"} 1\nsotto_x 2\\";
        page.family("lag", Kind::Gauge, "h", [(vec![("stream", hostile)], 3)]);
        page.family("none", Kind::Counter, "h", []);
        page.single("seen", Kind::Counter, "h", 4);
        let expected = "# TYPE sotto_lag gauge\n# HELP sotto_lag h\n\
            sotto_lag{stream=\"a\\\"} 1\\nsotto_x 2\\\\\"} 3\n\
            # TYPE sotto_seen counter\n# HELP sotto_seen h\nsotto_seen_total 4\n# EOF\n";
        assert_eq!(page.end(), expected);
    }
}
