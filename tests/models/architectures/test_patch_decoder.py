import math

import torch

from models.architectures.patch_decoder import PatchDecoder, position_embedding
from models.task_settings.masking import HEAD_WIDTH


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    embedding = position_embedding((2, 3), 16)
    for row in range(2):
        for column in range(3):
            expected = [
                function(place / 10_000 ** (number / 4))
                for place in (column, row)
                for function in (math.sin, math.cos)
                for number in range(4)
            ]
            torch.testing.assert_close(embedding[3 * row + column], torch.tensor(expected))


def test_the_embedding_has_the_width_of_any_decoder() -> None:
    widths = range(HEAD_WIDTH, 4096 + 1, HEAD_WIDTH)
    assert [position_embedding((1, 2), width).shape for width in widths] == [(2, width) for width in widths]


def test_layers_are_normalised_as_published() -> None:
    decoder = PatchDecoder(8, 2, patch=4, width=32, depth=2)
    values = [layer.eps for layer in decoder.modules() if isinstance(layer, torch.nn.LayerNorm)]
    assert values == [1e-6] * 6


def test_patches_are_at_their_positions() -> None:
    decoder = PatchDecoder(8, 2, patch=4, width=32, depth=1)
    linear = decoder.prediction[-1]
    assert isinstance(linear, torch.nn.Linear)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = torch.arange(32.0)
    images = decoder(torch.rand(1, 7, 8), torch.arange(6).view(1, 6), (2, 3))
    assert images.shape == (1, 2, 8, 12)
    for row in range(2):
        for column in range(3):
            part = images[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(part.flatten(), torch.arange(32.0))


def test_hidden_patches_are_predicted_from_visible_ones_and_their_position() -> None:
    torch.manual_seed(0)
    decoder = PatchDecoder(8, 1, patch=4, width=32, depth=1).eval()
    tokens = torch.rand(1, 3, 8)
    first, second = (decoder(tokens, torch.tensor([numbers]), (2, 2)) for numbers in ([0, 1], [1, 0]))
    moved = decoder(tokens[:, [0, 2, 1]], torch.tensor([[1, 0]]), (2, 2))
    torch.testing.assert_close(first, moved)
    assert not torch.allclose(first, second)
