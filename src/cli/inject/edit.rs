//! Edits of a text, collected, and then done at once.
//!
//! Every edit is in terms of the text as it was. What comes in keeps the ends of lines that are there, a missing one at the end of the text too.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::{flow, lines::Lines};

/// A piece of text that comes in the place of another.
#[derive(Debug)]
pub(super) struct Edit {
    at: usize,
    end: usize,
    text: String,
    /// How deep in the object it is: what comes in at one place is written from the inside out.
    depth: usize,
}

impl Edit {
    pub(super) fn insertion(at: usize, text: String, depth: usize) -> Self {
        Self {
            at,
            end: at,
            text,
            depth,
        }
    }

    pub(super) fn removal(at: usize, end: usize) -> Self {
        Self {
            at,
            end,
            text: String::new(),
            depth: 0,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Edits<'a> {
    lines: &'a Lines<'a>,
    edits: Vec<Edit>,
    /// Whole lines that go.
    gone: BTreeSet<usize>,
    /// Of maps in flow style, by where they open.
    maps: BTreeMap<usize, Pairs>,
}

/// Where the pairs of a map are, and which of them go.
#[derive(Debug)]
struct Pairs {
    spans: Vec<(usize, usize)>,
    gone: Vec<usize>,
}

impl<'a> Edits<'a> {
    pub(super) fn of(lines: &'a Lines<'a>) -> Self {
        Self {
            lines,
            edits: Vec::new(),
            gone: BTreeSet::new(),
            maps: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, edit: Edit) {
        self.edits.push(edit);
    }

    pub(super) fn extend(&mut self, edits: Vec<Edit>) {
        self.edits.extend(edits);
    }

    pub(super) fn insert_lines(&mut self, after: usize, lines: &[String], depth: usize) {
        let own = self.lines.end(after);
        let end = [own, self.lines.end(0), "\n"];
        let end = end.into_iter().find(|end| !end.is_empty());
        let end = end.unwrap_or_default();
        let text = match own {
            // The text's last line has no end, and is not to get one.
            "" => lines.iter().flat_map(|line| [end, line]).collect(),
            _ => lines.iter().flat_map(|line| [line, end]).collect(),
        };
        let at = self.lines.start(after + 1);
        self.push(Edit::insertion(at, text, depth));
    }

    pub(super) fn remove_lines(&mut self, lines: RangeInclusive<usize>) {
        self.gone.extend(lines);
    }

    /// Takes a pair out of the map that opens at `map`. All at once, since which comma goes depends on what else does.
    pub(super) fn remove_pair(
        &mut self,
        map: usize,
        spans: impl FnOnce() -> Vec<(usize, usize)>,
        pair: usize,
    ) {
        let pairs = self.maps.entry(map).or_insert_with(|| Pairs {
            spans: spans(),
            gone: Vec::new(),
        });
        pairs.gone.push(pair);
    }

    /// The text with all edits.
    pub(super) fn done(self) -> String {
        let Self {
            lines,
            mut edits,
            gone,
            maps,
        } = self;
        for pairs in maps.values() {
            edits.extend(flow::remove(&pairs.spans, &pairs.gone));
        }
        for line in &gone {
            edits.push(Edit::removal(lines.start(*line), lines.start(line + 1)));
        }
        edits.sort_by_key(|edit| (edit.at, Reverse(edit.depth)));
        let mut out = String::with_capacity(lines.text.len() * 2);
        let mut at = 0;
        for edit in edits {
            out.push_str(&lines.text[at..edit.at]);
            out.push_str(&edit.text);
            at = edit.end;
        }
        out.push_str(&lines.text[at..]);
        // What is the last line now has no end either.
        let last = lines.count() - 1;
        if gone.contains(&last)
            && lines.end(last).is_empty()
            && out.pop() == Some('\n')
            && out.ends_with('\r')
        {
            out.pop();
        }
        out
    }
}
