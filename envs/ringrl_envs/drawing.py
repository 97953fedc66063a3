"""Pictures of grids and mazes from above, in plain numpy, so that videos need no graphics driver."""

import numpy as np

FLOOR = (236, 236, 232)
LINE = (208, 208, 204)
WALL = (92, 84, 76)
AGENT = (38, 92, 180)
GOAL = (58, 158, 88)
KEY = (224, 168, 32)
DOOR = (150, 62, 42)

Color = tuple[int, int, int]


def grid_frame(size: int, cell_colors: list[tuple[tuple[int, int], Color]], agent: tuple[int, int]) -> np.ndarray:
    """A size x size grid with colored cells and the agent as a disc: (height, width, 3) uint8."""
    pixels = max(8, 288 // size)
    frame = np.empty((size * pixels, size * pixels, 3), np.uint8)
    frame[:] = FLOOR
    frame[::pixels] = LINE
    frame[:, ::pixels] = LINE
    for (row, column), color in cell_colors:
        frame[row * pixels + 1 : (row + 1) * pixels, column * pixels + 1 : (column + 1) * pixels] = color
    center = (np.asarray(agent) + 0.5) * pixels
    draw_disc(frame, center[0], center[1], 0.32 * pixels, AGENT)
    return frame


def maze_frame(walls: np.ndarray, discs: list[tuple[float, float, float, Color, float]]) -> np.ndarray:
    """Walls (rows, columns) with discs (row, column, radius, color, opacity), in cells: (height, width, 3) uint8."""
    pixels = max(8, 16 * (336 // (16 * walls.shape[1])))
    image = np.where(np.asarray(walls)[..., None], np.array(WALL, np.uint8), np.array(FLOOR, np.uint8))
    frame = np.repeat(np.repeat(image, pixels, axis=0), pixels, axis=1)
    for row, column, radius, color, opacity in discs:
        draw_disc(frame, row * pixels, column * pixels, radius * pixels, color, opacity)
    return frame


def draw_disc(frame: np.ndarray, row: float, column: float, radius: float, color: Color, opacity: float = 1.0) -> None:
    """Paint a disc, in pixels, into the frame."""
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    inside = (rows + 0.5 - row) ** 2 + (columns + 0.5 - column) ** 2 <= radius**2
    frame[inside] = np.round(opacity * np.array(color) + (1 - opacity) * frame[inside]).astype(np.uint8)
