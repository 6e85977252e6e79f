"""One picture of a person, part by part from back to front.

The picture is a square from -1 to 1 in both directions, y down. "Left" is the person's own left, at x > 0 in the
picture. Shapes are rounded to whole pixels.
"""

import numpy as np
from PIL import ImageDraw

from .person import mixed, shade
from .pose import placed, turn
from .shapes import closed, curve, ellipse, mirrored, stroke

# Where things are, in halves of the picture
HAIRLINE, CHIN = -0.47, 0.6
_MOUTH, _EYES = 0.33, -0.06
# How far blendshapes at 1 move them
JAW_DROP = 0.1  # the chin
LIP_DROP = 0.27  # the lower lip
UPPER_UP, LOWER_DOWN, FUNNEL, PARTED = 0.06, 0.06, 0.03, 0.075

_INK = (52, 36, 40)
_WHITE = (250, 248, 244)
_TEETH = (252, 250, 246)
_THROAT = (92, 30, 40)
_TONGUE = (214, 104, 108)
_T = np.linspace(-1, 1, 21)  # along the mouth, from the right corner to the left one
_BOW = 1 - 0.28 * np.exp(-((_T / 0.2) ** 2))
_ALONG = np.linspace(0, 1, 15)  # along a lid, from the inner corner to the outer one
_LID = np.sin(np.pi * _ALONG**0.85) ** 0.8


def smile_parts(smile, roll):
    """How far a broad smile parts the lips, 0 to 1, unless they are rolled in to close."""
    return np.maximum(smile - 0.3, 0) / 0.7 * np.maximum(1 - 3 * roll, 0)


class Drawing:
    """One picture while it is drawn, from back to front."""

    def __init__(self, picture, person, shapes, pose):
        self.person, self.shapes, self.pose = person, shapes, pose
        self._half = picture.width / 2
        self._polygon = ImageDraw.Draw(picture).polygon
        self._turn = turn(pose) * self._half
        self._shift = complex(placed(np.array(0j), pose)) * self._half + self._half * (1 + 1j)
        self.dark = mixed(shade(person.skin, 0.8), (150, 70, 60), 0.18)
        self.deep = mixed(shade(person.skin, 0.62), (120, 50, 50), 0.25)
        self.hair_dark = shade(person.hair, 0.78)
        self.jaw = shapes["jawOpen"]

    def all(self):
        self.back_of_hair()
        self.body()
        self.head()
        self.cheeks()
        self.mouth()
        self.beard_over()
        self.nose()
        for side in (-1, 1):
            self.eye(side)
        self.forehead()
        self.front_of_hair()
        for side in (-1, 1):
            self.brow(side)
        self.glasses()

    # Tools

    def fill(self, points, colour):
        """A polygon of the head."""
        self._polygon((points * self._turn + self._shift).view(np.float64).round().astype(np.int64).tolist(), colour)

    def fill_still(self, points, colour):
        """A polygon that stays where it is when the head moves."""
        points = (points + (1 + 1j)) * self._half
        self._polygon(points.view(np.float64).round().astype(np.int64).tolist(), colour)

    def line(self, points, width, colour, taper=0.7):
        self.fill(stroke(points, width, taper), colour)

    def both(self, name):
        return (self.shapes[name + "Left"] + self.shapes[name + "Right"]) / 2

    def of(self, name, side):
        """What a blendshape is on one side of the picture: its left, -1, is the person's right."""
        return self.shapes[name + ("Left" if side > 0 else "Right")]

    # Parts

    def body(self):
        person = self.person
        shoulders = mirrored(0.7j, 0.24 + 0.74j, 0.6 + 0.84j, 0.85 + 1.05j, 0.8 + 1.4j, 1.4j)
        fabric, fold = person.fabric, shade(person.fabric, 0.82)
        if person.clothes == "hood":
            self.fill_still(mirrored(0.5j, 0.34 + 0.58j, 0.5 + 0.8j, 0.3 + 1.0j, 1.05j), fold)
        self.fill_still(shoulders, fabric)
        neck = np.array([-0.2 + 0.3j, 0.2 + 0.3j, 0.2 + 0.72j, 0.25 + 0.8j, 0.9j, -0.25 + 0.8j, -0.2 + 0.72j])
        if person.clothes == "v-neck":
            self.fill_still(np.array([-0.33 + 0.72j, 0.33 + 0.72j, 1.0j]), fold)
            neck = np.array([-0.2 + 0.3j, 0.2 + 0.3j, 0.2 + 0.7j, 0.28 + 0.74j, 0.96j, -0.28 + 0.74j, -0.2 + 0.7j])
        elif person.clothes == "crew":
            self.fill_still(ellipse(0.76j, 0.31, 0.16), fold)
        self._neck(neck)
        if person.clothes == "collar":
            for side in (-1, 1):
                wing = np.array([0.2 + 0.66j, 0.34 + 0.74j, 0.24 + 0.96j, 0.9j])
                self.fill_still(wing if side > 0 else -wing.conjugate(), shade(person.fabric, 1.15))
        elif person.clothes == "hood":
            for side in (-1, 1):
                self.fill_still(ellipse(side * 0.14 + 0.98j, 0.014, 0.09), shade(person.fabric, 1.2))

    def _neck(self, neck):
        shift = complex(self.pose.x, self.pose.y) * 2
        neck = neck + np.where(neck.imag < 0.5, shift, 0)
        self.fill_still(neck, self.person.skin)
        jaw = mirrored(0.3j, 0.3 + 0.4j, 0.2 + 0.62j, 0.7j) + 0.05j * self.jaw
        inside = np.clip(jaw.real + shift.real, -0.2 + shift.real / 2, 0.2 + shift.real / 2) + 1j * jaw.imag
        self.fill_still(inside, self.dark)

    def head(self):
        person = self.person
        wide, drop = person.face_width, self.jaw * JAW_DROP
        puff = 0.05 * self.shapes["cheekPuff"]
        jaw, chin = person.jaw * wide, CHIN * person.chin + drop
        for side in (-1, 1):
            ear = ellipse(side * 0.5 * wide + 0.02j, 0.075 * person.ears, 0.115 * person.ears)
            self.fill(ear, self.dark)
            self.fill(ellipse(side * 0.49 * wide + 0.02j, 0.06 * person.ears, 0.095 * person.ears), person.skin)
        half = (
            *(-0.74j, 0.28 * wide - 0.68j, 0.455 * wide - 0.42j, 0.49 * wide - 0.08j),
            *(0.455 * jaw + puff + (0.2 + drop * 0.3) * 1j, 0.33 * jaw + puff * 0.6 + (0.43 + drop * 0.7) * 1j),
            *(0.14 * jaw + (chin - 0.025) * 1j, chin * 1j),
        )
        outline = mirrored(*half)
        self.fill(outline, self.dark)
        self.fill(outline * 0.965 + (-0.012 - 0.012j), person.skin)
        self.outline = outline
        self.chin = chin
        if person.beard in ("stubble", "full"):
            stubble = person.beard == "stubble"
            colour = mixed(person.skin, person.hair, 0.3 if stubble else 0.92)
            beard = (
                *(0.24j + 0.47 * jaw, 0.36 * jaw + (0.45 + drop * 0.7) * 1j, 0.15 * jaw + (chin + 0.015) * 1j),
                *((chin + 0.03) * 1j, -0.15 * jaw + (chin + 0.015) * 1j, -0.36 * jaw + (0.45 + drop * 0.7) * 1j),
                *(-0.47 * jaw + 0.24j, -0.46 * wide + 0.02j, -0.4 * jaw + 0.2j, -0.22 + 0.25j, 0.225j),
                *(0.22 + 0.25j, 0.4 * jaw + 0.2j, 0.46 * wide + 0.02j),
            )
            self.fill(closed(*beard), colour)

    def cheeks(self):
        person = self.person
        rose = mixed(person.skin, (232, 92, 96), 0.1 + 0.16 * person.blush)
        bearded = person.beard in ("stubble", "full")
        for side in (-1, 1):
            squint, smile = self.of("cheekSquint", side), self.of("mouthSmile", side)
            lift = 0.045 * squint + 0.03 * smile
            x = side * 0.29 * person.face_width
            self.fill(ellipse(x + (0.14 - lift) * 1j, 0.1 + 0.012 * squint, 0.06 + 0.012 * squint), rose)
            if squint > 0.15:  # a raised cheek folds below the eye
                fold = curve(
                    *(side * 0.15 + (0.085 - lift * 0.6) * 1j, side * 0.24 + (0.105 - lift) * 1j),
                    side * 0.34 + (0.06 - lift) * 1j,
                )
                self.line(fold, 0.004 + 0.008 * squint, self.dark)
            sneer = max(self.of("noseSneer", side), 0.5 * self.of("mouthUpperUp", side))
            laugh = max(0.0, smile - 0.25)
            depth = max(sneer, laugh, 0.8 * self.of("mouthDimple", side) - 0.2)
            if depth > 0.12 and not bearded:  # from the nose to the corner of the mouth
                fold = curve(side * 0.105 + 0.12j, side * 0.175 + 0.2j, side * (0.215 + 0.03 * laugh) + 0.3j)
                self.line(fold, 0.003 + 0.009 * depth, self.dark)
            if person.freckles:
                for spot in (0.22 + 0.11j, 0.28 + 0.15j, 0.34 + 0.1j, 0.25 + 0.17j):
                    self.fill(ellipse(side * spot.real + spot.imag * 1j, 0.013, 0.013, 8), self.dark)

    def nose(self):
        person, sneer = self.person, self.both("noseSneer")
        wide, tip = 0.062 * person.nose_width, 0.085 + 0.075 * person.nose_length - 0.03 * sneer
        wide += 0.014 * sneer
        bridge = np.array([0.02 - 0.06j, 0.03 + 0.03j, wide + (tip - 0.03) * 1j, wide * 0.8 + (tip + 0.016) * 1j])
        self.fill(np.concatenate([bridge, [tip * 1j, -0.005 + 0.02j]]), mixed(person.skin, self.dark, 0.55))
        self.fill(ellipse((tip - 0.01) * 1j, wide, 0.032), mixed(person.skin, self.dark, 0.28))
        self.fill(ellipse(-0.012 + (tip - 0.022) * 1j, wide * 0.5, 0.016), mixed(person.skin, (255, 255, 255), 0.3))
        for side in (-1, 1):
            up = 0.02 * self.of("noseSneer", side)
            self.fill(ellipse(side * wide * 0.62 + (tip + 0.008 - up) * 1j, 0.017, 0.011 + 0.3 * up, 10), self.deep)
            depth = self.of("noseSneer", side)
            if depth > 0.12:  # wrinkles on the bridge, and the raised wing
                for y in (-0.075, -0.035, 0.005):
                    wrinkle = curve(
                        side * 0.012 + (y + 0.012) * 1j, side * 0.04 + y * 1j, side * 0.075 + (y + 0.02) * 1j
                    )
                    self.line(wrinkle, 0.003 + 0.008 * depth, self.dark)
                wing = curve(
                    side * 0.07 + (tip - 0.05) * 1j, side * 0.1 + (tip - 0.03) * 1j, side * 0.1 + (tip + 0.02) * 1j
                )
                self.line(wing, 0.004 + 0.009 * depth, self.dark)

    def eye(self, side):
        person = self.person
        blink, wide = self.of("eyeBlink", side), self.of("eyeWide", side)
        squint, cheek = self.of("eyeSquint", side), self.of("cheekSquint", side)
        size = person.eye_size
        centre = side * 0.205 * person.eye_spacing * person.face_width + _EYES * 1j
        half, height = 0.125 * size, 0.082 * size
        tilt = side * (_ALONG - 0.5) * -person.eye_tilt * 2
        x = side * (2 * _ALONG - 1) * half
        raised = height * (1 + 0.5 * wide - 0.3 * squint)
        low = height * 0.78 * (1 + 0.12 * wide - 0.75 * squint - 0.42 * cheek - 0.5 * self.of("noseSneer", side))
        low = max(low, 0.0)
        shut = min(1.0, blink)
        lower = low * _LID
        upper = -(raised * (1 - shut) - low * 0.75 * shut) * _LID
        upper = np.minimum(upper, lower - 0.002) + tilt * side
        lower = lower + tilt * side
        # The crease of the lid above, then the eye, cut off by its lids.
        if shut < 0.9:
            crease = -(height * 1.32 + 0.04 * wide) * _LID + tilt * side
            lid = np.concatenate([x + 1j * crease, (x + 1j * upper)[::-1]])
            self.fill(centre + lid, mixed(person.skin, self.dark, 0.45))
            self.fill(centre + np.concatenate([x + 1j * upper, (x + 1j * lower)[::-1]]), _WHITE)
            self._iris(centre, side, x, upper, lower)
        else:
            lid = np.concatenate([x - 1j * height * _LID, (x + 1j * lower)[::-1]])
            self.fill(centre + lid, mixed(person.skin, self.dark, 0.3))
        lash = 0.017 if person.beard == "none" and person.lips > 0.95 else 0.013
        line = x + 1j * upper
        line[-1] += side * 0.018 - 0.008j
        self.fill(centre + stroke(line, lash, 0.5), _INK)
        if squint > 0.15 or cheek > 0.3:
            self.line(centre + x + 1j * lower + 0.008j, 0.004 + 0.006 * max(squint, cheek), self.deep)

    def _iris(self, centre, side, x, upper, lower):
        inwards, outwards = self.of("eyeLookIn", side), self.of("eyeLookOut", side)
        gaze = side * 0.055 * (outwards - inwards)
        gaze += 1j * 0.045 * (self.of("eyeLookDown", side) - self.of("eyeLookUp", side))
        radius = 0.069 * self.person.eye_size
        if side < 0:
            x, upper, lower = x[::-1], upper[::-1], lower[::-1]
        order = slice(None) if x[0] < x[-1] else slice(None, None, -1)
        x, upper, lower = x[order], upper[order], lower[order]

        def inside(shape):
            over, under = np.interp(shape.real, x, upper), np.interp(shape.real, x, lower)
            return np.clip(shape.real, x[0], x[-1]) + 1j * np.clip(shape.imag, over, under)

        self.fill(centre + inside(ellipse(gaze, radius, radius)), self.person.eyes)
        self.fill(centre + inside(ellipse(gaze, radius * 0.55, radius * 0.55, 14)), (28, 20, 24))
        self.fill(centre + inside(ellipse(gaze - 0.025 - 0.028j, 0.02, 0.02, 10)), (255, 255, 255))

    def brow(self, side):
        person = self.person
        up, down, outer = self.shapes["browInnerUp"], self.of("browDown", side), self.of("browOuterUp", side)
        sneer = self.of("noseSneer", side)
        y = -0.245 - person.brow_height
        away = person.eye_spacing * person.face_width
        points = (
            complex(0.085 - 0.034 * down, y + 0.01 - 0.125 * up + 0.105 * down - 0.02 * outer + 0.01 * sneer),
            complex(0.155 - 0.015 * down, y - 0.012 - 0.07 * up + 0.07 * down - 0.06 * outer + 0.005 * sneer),
            complex(0.24, y - 0.024 - 0.005 * up + 0.03 * down - 0.095 * outer),
            complex(0.335, y + 0.022 + 0.02 * up + 0.0 * down - 0.075 * outer),
        )
        line = curve(*(complex(side * point.real * away, point.imag) for point in points))
        dark = mixed(shade(person.hair, 0.62), _INK, 0.3)
        if sum(person.skin) - sum(dark) < 130:  # light hair on dark skin, which would not show
            dark = (36, 24, 26)
        place = np.linspace(0, 1, len(line))
        width = 0.024 * person.brow_thickness * (1.12 - 0.62 * place**1.4)
        tangent = np.gradient(line)
        across = 1j * tangent / np.abs(tangent) * width
        self.fill(np.concatenate([line + across, (line - across)[::-1]]), dark)

    def forehead(self):
        down, up = self.both("browDown"), self.shapes["browInnerUp"]
        if down > 0.12:  # folds between the brows
            for side in (-1, 1):
                fold = curve(side * 0.04 - 0.27j, side * 0.028 - 0.22j, side * 0.034 - 0.15j)
                self.line(fold, 0.004 + 0.009 * down, self.dark)
        raised = max(up, self.both("browOuterUp"))
        if raised > 0.25:
            wide = 0.2 if self.both("browOuterUp") > 0.2 else 0.11
            fold = curve(-wide - 0.4j, -0.42j, wide - 0.4j)
            self.line(fold, 0.003 + 0.008 * (raised - 0.2), self.dark, 0.9)

    def mouth(self):
        shape, person = self.shapes, self.person
        pucker, funnel = shape["mouthPucker"], shape["mouthFunnel"]
        gap = max(0.0, self.jaw - shape["mouthClose"])
        press = self.both("mouthPress")
        corners = []
        for side in (-1, 1):
            smile, frown = self.of("mouthSmile", side), self.of("mouthFrown", side)
            stretch, dimple = self.of("mouthStretch", side), self.of("mouthDimple", side)
            out = 1 + 0.33 * smile + 0.3 * stretch + 0.12 * dimple + 0.15 * frown
            out -= 0.4 * pucker + 0.28 * funnel + 0.26 * gap + 0.08 * self.of("mouthPress", side)
            up = 0.115 * smile + 0.07 * dimple - 0.1 * frown - 0.03 * stretch
            corners.append(complex(side * 0.17 * person.mouth_width * max(out, 0.3), -up))
        right, left = corners
        jut = 0.055 * shape["mouthShrugLower"]
        share = (_T + 1) / 2
        x = np.where(_T < 0, -_T * right.real, _T * left.real)
        ends = np.where(_T < 0, right.imag, left.imag) * np.abs(_T) ** 1.7
        middle = 1 - np.abs(_T) ** 2.4
        round_ = np.sqrt(np.maximum(1 - _T**2, 0))
        hang = 0.46 * LIP_DROP * gap * (1 - 0.8 * self.both("mouthSmile"))  # how far the corners go down with the jaw
        parted = PARTED * smile_parts(self.both("mouthSmile"), shape["mouthRollLower"])
        up = self.of("mouthUpperUp", -1) * (1 - share) + self.of("mouthUpperUp", 1) * share
        low = self.of("mouthLowerDown", -1) * (1 - share) + self.of("mouthLowerDown", 1) * share
        upper = ends + hang * (1 - round_) - (UPPER_UP * up + FUNNEL * funnel + jut) * middle
        lower = ends + hang + (LIP_DROP * gap - hang) * round_
        lower = lower + (parted + LOWER_DOWN * low + FUNNEL * funnel - jut) * middle
        centre = complex(0.035 * (shape["mouthLeft"] - shape["mouthRight"]), _MOUTH + 0.012 * self.jaw)
        pressed = self.of("mouthPress", -1) * (1 - share) + self.of("mouthPress", 1) * share
        lips = mixed(mixed(person.skin, self.dark, 0.5), (196, 60, 72), 0.25 + 0.5 * person.redness)
        thin = (1 - 0.55 * pressed) * (1 - 0.2 * self.both("mouthStretch")) * (1 - 0.12 * self.both("mouthSmile"))
        above = 0.044 * person.lips * thin * (1 - 0.8 * shape["mouthRollUpper"]) * (1 + 0.35 * pucker)
        below = 0.056 * person.lips * thin * (1 - 0.8 * shape["mouthRollLower"]) * (1 + 0.35 * pucker)
        top = upper - above * round_ * _BOW
        bottom = lower + below * round_
        self.fill(centre + np.concatenate([x + 1j * top, (x + 1j * (lower + 0.001))[::-1]]), shade(lips, 0.9))
        self.fill(centre + np.concatenate([x + 1j * upper, (x + 1j * bottom)[::-1]]), lips)
        if (lower - upper).max() > 0.012:
            self._inside(centre, x, upper, lower)
        else:
            self.line(
                centre + x + 0.5j * (upper + lower), 0.0085 + 0.004 * press, mixed(shade(lips, 0.45), _INK, 0.4), 0.4
            )
        for side, corner in ((-1, right), (1, left)):
            depth = max(
                self.of("mouthDimple", side), self.of("mouthSmile", side) - 0.3, self.of("mouthPress", side) - 0.3
            )
            if depth > 0.12 and person.beard != "full":
                end = centre + corner + side * 0.022
                line = curve(end - 0.035j, end + side * 0.014 + 0j, end + 0.03j)
                self.line(line, 0.004 + 0.009 * depth, self.dark)
        if jut > 0.01 or press > 0.3:  # the chin pushed up
            y = _MOUTH + 0.115 + 0.03 * self.jaw
            bulge = curve(-0.085 + (y + 0.025) * 1j, y * 1j - 0.008j, 0.085 + (y + 0.025) * 1j)
            if person.beard not in ("full",):
                self.line(bulge, 0.003 + 0.11 * jut + 0.004 * press, self.dark)

    def _inside(self, centre, x, upper, lower):
        self.fill(centre + np.concatenate([x + 1j * upper, (x + 1j * lower)[::-1]]), _THROAT)
        open_ = lower - upper
        if open_.max() > 0.07:
            at = 0.75 * x
            low = np.interp(at, x, lower)
            tongue = np.maximum(low - 0.42 * (open_.max() - 0.05) * np.sqrt(np.maximum(1 - _T**2, 0)), upper)
            self.fill(centre + np.concatenate([at + 1j * tongue, (at + 1j * low)[::-1]]), _TONGUE)
        teeth = np.minimum(upper + 0.052, lower)
        inner = slice(2, -2)
        strip = np.concatenate([(x + 1j * upper)[inner], (x + 1j * teeth)[inner][::-1]])
        self.fill(centre + strip, _TEETH)
        down = self.both("mouthLowerDown") + 0.6 * self.both("mouthStretch")
        if down > 0.2:
            teeth = np.maximum(lower - 0.04 * min(1, down), np.minimum(upper + 0.052, lower))
            inner = slice(4, -4)
            strip = np.concatenate([(x + 1j * lower)[inner], (x + 1j * teeth)[inner][::-1]])
            self.fill(centre + strip, shade(_TEETH, 0.93))

    def beard_over(self):
        if self.person.beard in ("moustache", "full"):
            lift = 0.03 * self.both("mouthUpperUp") + 0.01 * self.both("noseSneer")
            wide = 0.5 * (self.both("mouthSmile") + self.both("mouthStretch")) - 0.5 * self.shapes["mouthPucker"]
            half = 0.175 + 0.035 * wide
            lowest = 0.005 - 0.06 * self.both("mouthSmile") + 0.03 * self.both("mouthFrown")
            shape = mirrored(
                *((0.235 - lift) * 1j, 0.08 + (0.222 - lift) * 1j, half + (0.3 + lowest) * 1j),
                *(half * 0.93 + (0.325 + lowest) * 1j, 0.08 + (0.285 - lift) * 1j, (0.278 - lift) * 1j),
            )
            self.fill(shape, shade(self.person.hair, 0.9))

    def back_of_hair(self):
        style, hair, wide = self.person.hair_style, self.hair_dark, self.person.face_width
        if style == "long":
            half = (
                -0.85j,
                0.45 * wide - 0.72j,
                0.61 * wide - 0.2j,
                0.62 * wide + 0.4j,
                0.66 * wide + 0.9j,
                0.35 + 1.0j,
            )
            self.fill(mirrored(*half, 0.95j), hair)
        elif style == "bob":
            half = (-0.85j, 0.46 * wide - 0.72j, 0.63 * wide - 0.2j, 0.66 * wide + 0.25j, 0.5 * wide + 0.48j, 0.4j)
            self.fill(mirrored(*half), hair)
        elif style == "buns":
            for side in (-1, 1):
                self.fill(ellipse(side * 0.44 * wide - 0.72j, 0.17, 0.16), hair)
                self.fill(ellipse(side * 0.445 * wide - 0.735j, 0.145, 0.135), self.person.hair)
        elif style == "curly":
            for angle in np.linspace(-0.25, np.pi + 0.25, 12):
                place = complex(np.cos(angle) * 0.5 * wide, -np.sin(angle) * 0.5 - 0.24)
                self.fill(ellipse(place, 0.2, 0.19, 14), hair)

    def front_of_hair(self):
        person, style, wide = self.person, self.person.hair_style, self.person.face_width
        if style == "bald":
            self.fill(ellipse(-0.16 - 0.58j, 0.09, 0.035), mixed(person.skin, (255, 255, 255), 0.35))
            return
        crown = (0.505 * wide - 0.1j, 0.53 * wide - 0.42j, 0.38 * wide - 0.74j, -0.84j)
        lines = {  # the hairline, from the picture's right to its left
            "short": (0.445 * wide - 0.2j, 0.4 * wide - 0.42j, 0.2 - 0.5j, -0.2 - 0.5j, -0.4 * wide - 0.42j),
            "parted": (
                0.45 * wide - 0.2j,
                0.43 * wide - 0.38j,
                0.3 - 0.47j,
                0.12 - 0.62j,
                -0.2 - 0.45j,
                -0.41 * wide - 0.34j,
            ),
            "fringe": (0.46 * wide - 0.12j, 0.4 * wide - 0.36j, 0.2 - 0.4j, -0.2 - 0.4j, -0.4 * wide - 0.36j),
            "bob": (0.46 * wide - 0.12j, 0.4 * wide - 0.36j, 0.22 - 0.42j, -0.05 - 0.46j, -0.4 * wide - 0.33j),
            "long": (
                0.46 * wide - 0.1j,
                0.4 * wide - 0.4j,
                0.14 - 0.6j,
                0.04 - 0.64j,
                -0.24 - 0.52j,
                -0.43 * wide - 0.36j,
            ),
            "buns": (0.44 * wide - 0.2j, 0.36 * wide - 0.44j, 0.15 - 0.53j, -0.15 - 0.53j, -0.36 * wide - 0.44j),
            "curly": (0.44 * wide - 0.2j, 0.36 * wide - 0.43j, 0.15 - 0.5j, -0.15 - 0.5j, -0.36 * wide - 0.43j),
            "quiff": (0.45 * wide - 0.2j, 0.42 * wide - 0.4j, 0.26 - 0.52j, -0.1 - 0.53j, -0.4 * wide - 0.42j),
        }[style]
        left = tuple(-point.conjugate() for point in reversed(crown[:3]))
        last = -lines[0].conjugate()
        if style == "quiff":
            crown = (crown[0], crown[1], 0.46 * wide - 0.72j, 0.2 - 0.95j)
            left = (-0.2 - 0.88j, *left)
        self.fill(closed(*crown, *left, last, *reversed(lines)), person.hair)
        shine = mixed(person.hair, (255, 250, 240), 0.16)
        if style == "curly":
            for x in (-0.3, -0.1, 0.1, 0.3):
                self.fill(ellipse(complex(x * wide, -0.62 - 0.06 * (abs(x) < 0.2)), 0.15, 0.13, 14), person.hair)
                self.fill(
                    stroke(curve(complex(x - 0.05, -0.68), complex(x, -0.71), complex(x + 0.05, -0.68)), 0.012), shine
                )
        else:
            gleam = curve(-0.3 * wide - 0.66j, -0.12 - 0.74j, 0.1 - 0.75j)
            self.fill(stroke(gleam, 0.026, 0.9), shine)
        if style in ("long", "bob"):
            for side in (-1, 1):
                end = 0.72 if style == "long" else 0.3
                lock = closed(
                    *(side * 0.44 * wide - 0.42j, side * 0.54 * wide - 0.3j, side * 0.58 * wide + end * 0.5j),
                    *(side * 0.54 * wide + end * 1j, side * 0.47 * wide + end * 0.5j, side * 0.465 * wide - 0.1j),
                )
                self.fill(lock, person.hair)

    def glasses(self):
        kind = self.person.glasses
        if kind == "none":
            return
        away = 0.205 * self.person.eye_spacing * self.person.face_width
        for side in (-1, 1):
            centre = side * away + (_EYES + 0.01) * 1j
            if kind == "round":
                ring = ellipse(centre, 0.158, 0.15, 24)
            else:
                corner = np.array([-0.165 - 0.12j, 0.165 - 0.12j, 0.15 + 0.13j, -0.15 + 0.13j])
                ring = centre + np.concatenate([np.linspace(a, b, 6)[:-1] for a, b in zip(corner, np.roll(corner, -1))])
            line = np.concatenate([ring, ring[:1]])
            self.fill(stroke(line, 0.011, 0), (58, 52, 60))
        bridge = curve(-away + 0.155 + (_EYES - 0.01) * 1j, (_EYES - 0.03) * 1j, away - 0.155 + (_EYES - 0.01) * 1j)
        self.fill(stroke(bridge, 0.011, 0), (58, 52, 60))
