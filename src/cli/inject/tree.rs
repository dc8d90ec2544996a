//! Where everything stands in a YAML text: the parser's events as a tree, with offsets.
//!
//! The parser tells where a node begins, and where a flow collection ends. Where anything else ends is in `lines`.

use yaml_rust2::{
    Event, ScanError,
    parser::{MarkedEventReceiver, Parser},
    scanner::{Marker, TScalarStyle},
};

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its offset in bytes. Of a null that is not written, and of a list in block style, it is somewhere near.
    pub(super) start: usize,
    pub(super) shape: Shape,
}

/// What a node is. `close` is the offset of the bracket that ends a collection in flow style; block style has none.
#[derive(Debug)]
pub(super) enum Shape {
    Alias,
    Scalar(String, TScalarStyle),
    List {
        items: Vec<Node>,
        close: Option<usize>,
    },
    Map {
        pairs: Vec<(Node, Node)>,
        close: Option<usize>,
    },
}

impl Node {
    /// Whether it is a null, written or not.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.shape, Shape::Scalar(text, TScalarStyle::Plain) if ["", "~", "null"].contains(&text.as_str()))
    }

    /// Whether it is the text `text`.
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(&self.shape, Shape::Scalar(own, _) if own == text)
    }
}

/// The list of the documents in `text`.
pub(super) fn parse(text: &str) -> Result<Node, ScanError> {
    let mut builder = Builder {
        text,
        // The parser counts characters.
        offsets: (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect()),
        documents: Vec::new(),
        open: Vec::new(),
    };
    Parser::new_from_str(text).load(&mut builder, true)?;
    Ok(Node {
        start: 0,
        shape: Shape::List {
            items: builder.documents,
            close: None,
        },
    })
}

struct Builder<'a> {
    text: &'a str,
    offsets: Option<Vec<usize>>,
    documents: Vec<Node>,
    /// Collections that are not at their end.
    open: Vec<Open>,
}

struct Open {
    start: usize,
    is_map: bool,
    is_flow: bool,
    children: Vec<Node>,
}

impl MarkedEventReceiver for Builder<'_> {
    fn on_event(&mut self, event: Event, marker: Marker) {
        let start = match &self.offsets {
            None => marker.index(),
            Some(offsets) => offsets
                .get(marker.index())
                .copied()
                .unwrap_or(self.text.len()),
        };
        match event {
            Event::Alias(_) => self.add(start, Shape::Alias),
            Event::Scalar(text, style, ..) => self.add(start, Shape::Scalar(text, style)),
            Event::SequenceStart(..) => self.open(start, false, b'['),
            Event::MappingStart(..) => self.open(start, true, b'{'),
            Event::SequenceEnd | Event::MappingEnd => self.close(start),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart
            | Event::DocumentEnd => {}
        }
    }
}

impl Builder<'_> {
    fn add(&mut self, start: usize, shape: Shape) {
        let node = Node { start, shape };
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.documents.push(node),
        }
    }

    fn open(&mut self, start: usize, is_map: bool, bracket: u8) {
        self.open.push(Open {
            start,
            is_map,
            is_flow: self.text.as_bytes().get(start) == Some(&bracket),
            children: Vec::new(),
        });
    }

    fn close(&mut self, end: usize) {
        let Some(Open {
            start,
            is_map,
            is_flow,
            children,
        }) = self.open.pop()
        else {
            return;
        };
        let close = is_flow.then_some(end);
        let shape = if is_map {
            let mut children = children.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Shape::Map { pairs, close }
        } else {
            Shape::List {
                items: children,
                close,
            }
        };
        self.add(start, shape);
    }
}
