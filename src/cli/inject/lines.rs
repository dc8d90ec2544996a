//! A text as lines, and where its nodes end.

use yaml_rust2::scanner::TScalarStyle;

use super::tree::{Node, Shape};

/// See the module. Lines are counted from 0, and a line's text is without its end.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut starts: Vec<usize> = std::iter::once(0).chain(after).collect();
        if text.ends_with('\n') {
            starts.pop();
        }
        Self { text, starts }
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// Where a line starts; the end of the text for the line after the last.
    pub(super) fn start(&self, line: usize) -> usize {
        self.starts.get(line).copied().unwrap_or(self.text.len())
    }

    /// The line of an offset.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset) - 1
    }

    pub(super) fn column(&self, offset: usize) -> usize {
        offset - self.start(self.at(offset))
    }

    pub(super) fn line(&self, line: usize) -> &'a str {
        let whole = &self.text[self.start(line)..self.start(line + 1)];
        whole.trim_end_matches(['\r', '\n'])
    }

    /// How the line ends; the last may have no end.
    pub(super) fn end(&self, line: usize) -> &'a str {
        &self.text[self.start(line) + self.line(line).len()..self.start(line + 1)]
    }

    pub(super) fn indent(&self, line: usize) -> usize {
        let line = self.line(line);
        line.len() - line.trim_start_matches(' ').len()
    }

    pub(super) fn is_blank(&self, line: usize) -> bool {
        self.line(line).trim().is_empty()
    }

    pub(super) fn is_comment(&self, line: usize) -> bool {
        self.line(line).trim_start().starts_with('#')
    }

    /// The offset of a list item's dash, which is the first thing in its line.
    pub(super) fn dash(&self, item: &Node) -> Option<usize> {
        let own = self.at(item_start(item));
        for line in (0..=own).rev() {
            if self.is_dash(line) {
                return Some(self.start(line) + self.indent(line));
            }
            // A dash may stand alone above its item.
            if line != own && !self.is_blank(line) && !self.is_comment(line) {
                break;
            }
        }
        None
    }

    fn is_dash(&self, line: usize) -> bool {
        let text = self.line(line).trim_start_matches(' ');
        text == "-" || text.starts_with("- ") || text.starts_with("-\t")
    }

    /// The last line of a value. `parent` is the offset of its key or dash.
    pub(super) fn last(&self, value: &Node, parent: usize) -> usize {
        let own = self.at(value.start);
        match &value.shape {
            Shape::Alias => own,
            Shape::Scalar(text, TScalarStyle::Plain) if text.is_empty() => self.at(parent),
            Shape::Scalar(_, TScalarStyle::Plain) => self.last_plain(own, self.column(parent)),
            Shape::Scalar(_, TScalarStyle::SingleQuoted | TScalarStyle::DoubleQuoted) => {
                self.at(self.end_of_quoted(value.start) - 1)
            }
            Shape::Scalar(..) => self.last_block(parent),
            Shape::List {
                close: Some(close), ..
            }
            | Shape::Map {
                close: Some(close), ..
            } => self.at(*close),
            Shape::List { items, .. } => items.last().map_or(own, |item| {
                self.last(item, self.dash(item).unwrap_or(parent))
            }),
            Shape::Map { pairs, .. } => pairs
                .last()
                .map_or(own, |(key, value)| self.last(value, key.start)),
        }
    }

    /// A text without quotes goes on in lines that are deeper than its parent.
    fn last_plain(&self, first: usize, parent: usize) -> usize {
        let mut last = first;
        for line in first + 1..self.count() {
            if self.is_blank(line) {
                continue;
            }
            if self.indent(line) <= parent || self.is_comment(line) {
                break;
            }
            last = line;
        }
        last
    }

    /// A block of text: every line that is deeper than its parent. Blank lines at its end are part of it where its header says so.
    fn last_block(&self, parent: usize) -> usize {
        let header = self.at(parent);
        let column = self.column(parent);
        let is_kept = {
            let code = self.line(header).split(" #").next().unwrap_or_default();
            code.rsplit(['|', '>'])
                .next()
                .is_some_and(|rest| rest.contains('+'))
        };
        let mut last = header;
        for line in header + 1..self.count() {
            if self.is_blank(line) {
                if is_kept {
                    last = line;
                }
                continue;
            }
            if self.indent(line) <= column {
                break;
            }
            last = line;
        }
        last
    }

    /// The offset after a quoted text.
    pub(super) fn end_of_quoted(&self, start: usize) -> usize {
        let bytes = self.text.as_bytes();
        let quote = bytes[start];
        let mut at = start + 1;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if quote == b'"' => at += 1,
                b'\'' if quote == b'\'' && bytes.get(at + 1) == Some(&b'\'') => at += 1,
                byte if byte == quote => return at + 1,
                _ => {}
            }
            at += 1;
        }
        bytes.len()
    }

    /// The offset after a node in flow style.
    pub(super) fn end_in_flow(&self, node: &Node) -> usize {
        match &node.shape {
            Shape::List {
                close: Some(close), ..
            }
            | Shape::Map {
                close: Some(close), ..
            } => close + 1,
            Shape::Scalar(_, TScalarStyle::SingleQuoted | TScalarStyle::DoubleQuoted) => {
                self.end_of_quoted(node.start)
            }
            _ => {
                let rest = &self.text[node.start..];
                let end = rest.find([',', '[', ']', '{', '}', '#', '\n', '\r']);
                node.start + rest[..end.unwrap_or(rest.len())].trim_end().len()
            }
        }
    }
}

/// Where the first thing of an item is written.
fn item_start(item: &Node) -> usize {
    match &item.shape {
        Shape::Map { pairs, close: None } => pairs.first().map_or(item.start, |(key, _)| key.start),
        _ => item.start,
    }
}
