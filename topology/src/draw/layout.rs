//! Where each box goes: children side by side below their parent's words, in rows that end where the page does.

use super::svg::{Area, Canvas, LINE, text_width};
use crate::system::{BusId, LinkKind};

/// How wide a row of boxes may become before the next one starts; a single box may be wider.
const PAGE: f64 = 1500.0;

/// Space between a box and what is in it, and between its children.
const GAP: f64 = 8.0;

/// A box with words and with boxes inside.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Lines of text at its top; the first is a title.
    pub words: Vec<String>,
    /// Colour, as SVG has it.
    pub fill: &'static str,
    /// What is inside.
    pub children: Vec<Block>,
    /// The GPU that this is, with its links to others.
    pub gpu: Option<(BusId, Vec<(LinkKind, BusId)>)>,
}

/// A block's place, and its children's.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its own.
    pub area: Area,
    /// Theirs, in order.
    pub children: Vec<Placed>,
}

impl Placed {
    /// Its lower edge.
    pub fn bottom(&self) -> f64 {
        self.area.y + self.area.height
    }

    fn shift(&mut self, x: f64, y: f64) {
        (self.area.x, self.area.y) = (self.area.x + x, self.area.y + y);
        self.children.iter_mut().for_each(|child| child.shift(x, y));
    }
}

/// Places a block with its upper left corner there.
pub fn place(block: &Block, x: f64, y: f64) -> Placed {
    let mut placed = place_within(block, PAGE);
    placed.shift(x, y);
    placed
}

/// Places a block at the origin. What is inside is placed once and then moved, so this takes no longer than the number
/// of blocks times how deep they are.
fn place_within(block: &Block, room: f64) -> Placed {
    let widths = block.words.iter().enumerate().map(|(index, words)| text_width(words, index == 0));
    let widest = widths.fold(0.0, f64::max);
    let mut area = Area { x: 0.0, y: 0.0, width: widest + 2.0 * GAP, height: 0.0 };
    let (mut left, mut top) = (GAP, GAP + LINE * block.words.len() as f64);
    let mut row_bottom = top;
    let mut children: Vec<Placed> = Vec::with_capacity(block.children.len());
    for child in &block.children {
        let mut placed = place_within(child, room - 2.0 * GAP);
        if left > GAP && left + placed.area.width > room - GAP {
            (left, top) = (GAP, row_bottom + GAP);
        }
        placed.shift(left, top);
        left += placed.area.width + GAP;
        row_bottom = row_bottom.max(placed.bottom());
        area.width = area.width.max(left);
        children.push(placed);
    }
    area.height = row_bottom + GAP;
    Placed { area, children }
}

/// Draws a block where it was placed.
pub fn draw(canvas: &mut Canvas, block: &Block, placed: &Placed) {
    canvas.rectangle(placed.area, block.fill);
    for (index, words) in block.words.iter().enumerate() {
        let y = placed.area.y + GAP / 2.0 + LINE * index as f64;
        canvas.text(placed.area.x + GAP, y, words, index == 0);
    }
    for (child, placed) in block.children.iter().zip(&placed.children) {
        draw(canvas, child, placed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Block> {
        let leaf =
            "[a-z]{0,40}".prop_map(|words| Block { words: vec![words], fill: "#fff", ..Block::default() });
        leaf.prop_recursive(4, 80, 12, |inner| {
            (prop::collection::vec(inner, 0..12), "[a-z]{0,60}").prop_map(|(children, words)| Block {
                words: vec![words],
                fill: "#fff",
                children,
                gpu: None,
            })
        })
    }

    fn apart(one: &Area, other: &Area) -> bool {
        one.x + one.width <= other.x
            || other.x + other.width <= one.x
            || one.y + one.height <= other.y
            || other.y + other.height <= one.y
    }

    fn check(placed: &Placed) {
        for (index, child) in placed.children.iter().enumerate() {
            let (outer, inner) = (placed.area, child.area);
            assert!(
                outer.x < inner.x && inner.x + inner.width < outer.x + outer.width,
                "{outer:?} {inner:?}"
            );
            assert!(
                outer.y < inner.y && inner.y + inner.height < outer.y + outer.height,
                "{outer:?} {inner:?}"
            );
            assert!(placed.children[..index].iter().all(|other| apart(&other.area, &inner)));
            check(child);
        }
    }

    proptest! {
        #[test]
        fn boxes_lie_in_their_parents_and_beside_each_other(block in blocks()) {
            check(&place(&block, 10.0, 10.0));
        }
    }

    #[test]
    fn a_row_ends_where_the_page_does() {
        let child = Block { words: vec!["x".repeat(40)], ..Block::default() };
        let block = Block { children: vec![child; 10], ..Block::default() };
        let placed = place(&block, 0.0, 0.0);
        assert!(placed.area.width <= PAGE && placed.children[9].area.y > placed.children[0].area.y);
    }
}
