"""What people wrote is found whatever they call it, and what is not used is said: the account that scan ends with."""

import json
import unicodedata

import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

import lorakit
from lorakit import new_project, pipeline
from lorakit.curate import account
from lorakit.curate.check import measure


@pytest.fixture
def scan(tmp_path):
    """scan(place, **settings) scans tmp_path/photos (or a place in it) and gives {file: record} and the lines of the account."""

    def do(place="", **settings):
        folder = tmp_path / f"project{len(list(tmp_path.glob('project*')))}"
        project = new_project(folder, tmp_path / "photos" / place, settings=settings)
        lorakit.scan(project)
        return {r["file"]: r for r in project.manifest}, account.read(project)["lines"]

    return do


@pytest.fixture
def write(tmp_path):
    def do(name, content=""):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return do


def texts(records):
    return {file: r["sidecar"]["text"] for file, r in records.items() if r.get("sidecar")}


@pytest.mark.parametrize(
    "name",
    ["img_0.txt", "IMG_0.TXT", "IMG_0.Caption", "IMG_0.JPG.txt", "captions/img_0.txt", "../photos/labels/IMG_0.txt", "IMG_0.caption"],
)
def test_texts_match_whatever_their_case(make_photo, write, scan, name):
    make_photo("IMG_0.JPG", 1), write(name, "own words")
    records, lines = scan()
    assert texts(records) == {"IMG_0.JPG": "own words"} and not any("no photo" in line for line in lines)


def test_a_text_goes_to_the_photo_that_is_called_just_so(make_photo, write, scan):
    make_photo("a.jpg", 1), make_photo("A.jpg", 2), write("a.txt", "small"), write("A.txt", "large")
    assert texts(scan()[0]) == {"a.jpg": "small", "A.jpg": "large"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms_are_one(make_photo, write, scan, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    make_photo(unicodedata.normalize(form, "Ürlaub.jpg"), 1), make_photo(unicodedata.normalize(form, "한글.jpg"), 2)
    write(unicodedata.normalize(other, "Ürlaub.txt"), "one")
    write("metadata.jsonl", json.dumps({"file_name": unicodedata.normalize(other, "한글.jpg"), "text": "two"}))
    assert sorted(texts(scan()[0]).values()) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name;text\r\nIMG_0.jpg;own words, two\r\n"),
        ("captions.tsv", "image\tcaption\nIMG_0.jpg\town words, two\n"),
        ("labels.csv", 'Filename|Description\nimg_0.JPG|own words, two\n'),
        ("x.csv", 'sep=;\r\nfile;prompt\r\nD:\\x\\IMG_0.jpg;own words, two\r\n'),
        ("x.csv", 'IMG_0.jpg,"own words, two"\n'),
        ("x.csv", 'File Name,Beschreibung\nIMG_0.jpg,"own words, two"\n'),
        ("data.json", json.dumps({"images": [{"id": 7, "file_name": "IMG_0.jpg"}], "annotations": [{"image_id": 7, "caption": "own words, two"}]})),
        ("train.jsonl", json.dumps({"image_path": "D:\\data\\IMG_0.png", "description": "own words, two"})),
        ("captions.txt", "IMG_0.jpg: own words, two\n"),
        ("token.txt", "IMG_0.jpg#0\town words, two\n"),
        ("m.jsonl", json.dumps({"url": "https://host/a/IMG_0.jpg?size=2", "caption": "own words, two"})),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["", "images/", "set/"])
def test_lists_of_any_form_above_beside_and_below_the_photos(make_photo, write, scan, name, content, place):
    make_photo("images/IMG_0.jpg", 1), write(place + name, content)
    records, lines = scan()
    assert texts(records) == {"images/IMG_0.jpg": "own words, two"}
    assert not any("names" in line or "no photo" in line for line in lines)


def test_what_matches_nothing_is_said(make_photo, write, scan):
    make_photo("a.jpg", 1), make_photo("x/1.jpg", 2), make_photo("y/1.jpg", 3)
    write("captions.csv", "file,text\nb.jpg,b\nc.jpg,c\nd.jpg,d\n")
    write("other.csv", "foo,bar\n1,2\n")
    write("metadata.jsonl", json.dumps({"file_name": "1.jpg", "text": "which of two?"}))
    for name in ("b.txt", "notes.txt", "c.caption", "config.json"):
        write(name, "{}" if name.endswith("json") else "words")
    write("a.txt", " ")
    records, lines = scan()
    told = "\n".join(lines)
    assert not texts(records)
    assert "captions.csv names 3 photos, none found here: b.jpg, c.jpg, d.jpg" in told
    assert "metadata.jsonl names 1 photo, none found here: 1.jpg" in told
    assert "other.csv has no columns of names and texts that are known (foo, bar)" in told
    assert "4 text files belong to no photo: b.txt, c.caption, config.json, ..." in told
    assert "1 text file without words: a.txt" in told


def test_what_is_passed_over_is_counted_by_reason(make_photo, write, scan):
    make_photo("a.jpg", 1)
    for name in ("b.NEF", "c.dng", "d.jxl", "e.mov", ".f.HEIC.icloud", "._a.jpg", ".hidden.jpg", "x.bin", "g.zip"):
        write(name, b"II*\0 whatever" if name in ("b.NEF", "c.dng") else b"whatever")
    for name in (".DS_Store", "Thumbs.db"):
        write(name, b"system")
    records, lines = scan()
    assert set(records) == {"a.jpg"}
    told = next(line for line in lines if line.startswith("passed over"))
    for part in ("2 raw", "1 JPEG XL", "1 film ", "1 in iCloud only", "1 AppleDouble", "1 hidden", "1 archive "):
        assert part in told


def as_dng(path, tags, **more):
    """A small TIFF with the tags of a raw photo, as its thumbnail stands in front."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = value
    Image.new("RGB", (160, 120), "gray").save(path, "TIFF", tiffinfo=info, **more)
    return path


DNG, NEF = {0xC612: (1, bytes((1, 4, 0, 0)))}, {0xFE: (4, 1), 0x10F: (2, "NIKON"), 0x14A: (4, 8)}


@pytest.mark.parametrize("tags", [DNG, NEF])
def test_a_raw_photo_is_named_raw_whatever_it_is_called(make_photo, write, scan, tmp_path, tags):
    folder = tmp_path / "photos"
    make_photo("a.jpg", 1), make_photo("scan.tif", 2)
    for name in ("a.dng", "b.tif", "c.TIF", "d"):
        as_dng(folder / name, tags, big_tiff=False)
    write("e", b"\0\0\0\x18ftypcrx "), write("f.tif", b"FUJIFILMCCD-RAW 0201")
    records, lines = scan()
    assert set(records) == {"a.jpg", "scan.tif"}
    told = next(line for line in lines if line.startswith("passed over"))
    assert "6 raw (a.dng" in told and "develop raw photos first, as JPEG, PNG or TIFF (1 of 6 lie beside a photo of the same name" in told
    with pytest.raises(lorakit.LorakitError, match="there are 1 raw; develop raw photos first"):
        scan("b.tif")
    as_dng(folder / "x.jpg", tags), write("y.jpg", b"\0\0\0\x18ftypcrx ")
    for name in ("x.jpg", "y.jpg"):
        assert measure(folder / name)["measures"]["damaged"]["unreadable"] == "raw"


def test_raws_beside_their_photos_ask_for_nothing(make_photo, write, scan):
    make_photo("IMG_1.JPG", 1), write("IMG_1.NEF", b"MM\0*"), write("img_1.CR2", b"x")
    assert "2 raw (IMG_1.NEF, ...); the raw ones lie beside photos of the same name, which are taken" in " ".join(scan()[1])


XMP = (
    '<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">{}</rdf:Description></rdf:RDF></x:xmpmeta>'
)
SUBJECT = "<dc:subject><rdf:Bag><rdf:li>bear</rdf:li><rdf:li>red scarf</rdf:li></rdf:Bag></dc:subject>"
TOLD = '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">my bear on the lawn</rdf:li></rdf:Alt></dc:description>'


def test_xmp_files_are_offered_and_taken_where_asked(make_photo, write, scan, tmp_path):
    """As Lightroom (a.xmp) and digiKam (b.jpg.xmp) write them."""
    for number, name in enumerate("abc"):
        make_photo(f"{name}.jpg", number)
    write("A.xmp", XMP.format(SUBJECT + TOLD)), write("b.jpg.xmp", XMP.format(SUBJECT)), write("c.xmp", XMP.format(""))
    stray = write("gone.xmp", XMP.format(TOLD))
    records, lines = scan()
    assert not texts(records) and any(
        line.startswith("2 photos with a description inside (XMP, IPTC, EXIF) or in an .xmp") for line in lines
    )
    assert any(line.startswith("passed over: 2 notes of other programs (c.xmp") for line in lines)
    wanted = {"a.jpg": "my bear on the lawn", "b.jpg": "bear, red scarf"}
    records, lines = scan(**{"caption.embedded": True})
    assert texts(records) == wanted and "2 with a caption (2 from .xmp files)" in lines[0]
    assert texts(scan("a.jpg", **{"caption.embedded": True})[0]) == {"a.jpg": wanted["a.jpg"]}
    project = new_project(tmp_path / "again", tmp_path / "photos", settings={"caption.embedded": True})
    lorakit.scan(project)
    stray.rename(tmp_path / "photos" / "b.xmp"), (tmp_path / "photos" / "A.xmp").unlink(), (tmp_path / "photos" / "b.jpg.xmp").unlink()
    lorakit.scan(project)
    assert texts({r["file"]: r for r in project.manifest}) == {"b.jpg": "my bear on the lawn"}


def test_no_photos_says_what_there_is(write, tmp_path):
    write("a.nef", b"II*\0")
    for place in ("photos", "photos/a.nef"):
        with pytest.raises(lorakit.LorakitError, match="there are 1 raw"):
            lorakit.scan(new_project(tmp_path / f"p{len(place)}", tmp_path / place))


def test_status_has_the_account(make_photo, write, tmp_path):
    make_photo("a.jpg", 1), write("b.txt", "x")
    project = new_project(tmp_path / "p", tmp_path / "photos")
    assert pipeline.status(project)["scan"] is None
    lorakit.scan(project)
    found = pipeline.status(project)["scan"]
    assert found["photos"] == 1 and found["texts_without_photo"] == ["b.txt"] and "1 text file belongs to no photo: b.txt" in found["lines"]


def test_files_that_differ_and_several_captions_are_said(make_photo, write, scan):
    make_photo("a.jpg", 1), make_photo("b.jpg", 2), make_photo("c.jpg", 3)
    write("a.txt", "bear, grass"), write("a.caption", "a toy on a lawn"), write("a.tags", "Bear, Grass")
    write("b.txt", "a toy bear lying on grass\n\ntoy bear, grass, outdoors\nphoto of my bear in the garden\n")
    write("c.txt", "a bear in a chair"), write("c.json", '{"description": "IMG 4711"}')
    records, lines = scan()
    assert texts(records) == {"a.jpg": "bear, grass", "b.jpg": "a toy bear lying on grass", "c.jpg": "a bear in a chair"}
    assert records["a.jpg"]["sidecar"]["others"] == ["a toy on a lawn"]
    assert records["b.jpg"]["sidecar"]["others"] == ["toy bear, grass, outdoors", "photo of my bear in the garden"]
    assert "others" not in records["c.jpg"]["sidecar"] and any("c.jpg has the words of c.txt, not of c.json" in line for line in lines)
    assert any("2 photos with several captions; every visit of the training draws one of them" in line for line in lines)
    assert any("the first is used, the others are kept" in line for line in scan(**{"caption.several": "first"})[1])


@pytest.mark.parametrize("role", ["reg/1_toy", "regularization", "Regularisation Images", "model/sample", "samples"])
def test_pictures_with_a_role_are_left_out_and_said(make_photo, scan, role):
    make_photo("a.jpg", 1), make_photo(f"{role}/b.jpg", 2)
    records, lines = scan()
    assert set(records) == {"a.jpg"} and any(line.startswith("left out: 1 ") for line in lines)
    assert len(scan(**{"scan.roles": False})[0]) == 2
    assert len(scan(role.split("/")[0])[0]) == 1  # named itself


def test_a_folder_whose_name_misleads_keeps_its_photos(make_photo, scan):
    make_photo("mask/carnival.jpg", 1), make_photo("control/room.jpg", 2), make_photo("a.jpg", 3)
    assert len(scan()[0]) == 3


def test_only_samples_are_photos(make_photo, scan):
    make_photo("samples/a.jpg", 1)
    records, lines = scan()
    assert len(records) == 1 and any("they are taken as photos" in line for line in lines)


@pytest.mark.parametrize(
    "name",
    ["masks/a.png", "mask/A.png", "a-masklabel.png", "a.mask.png", "a_mask.PNG", "a-mask.webp", "masks/a_mask.png", "masks/img/a.png"],
)
def test_masks_are_masks(make_photo, scan, name):
    make_photo("a.jpg" if "img" not in name else "img/a.jpg", 1), make_photo("b.jpg", 2)
    make_photo(name, image=Image.new("L", (64, 64), 255))
    records, lines = scan()
    assert len(records) == 2 and sum("mask" in r for r in records.values()) == 1
    assert any("1 photo with a mask" in line for line in lines)


def test_a_photo_called_like_a_mask_is_a_photo(make_photo, scan):
    make_photo("party.jpg", 1), make_photo("party_mask.jpg", 2)
    assert len(scan()[0]) == 2


def test_control_pictures_and_projects_inside_are_left_out(make_photo, scan, tmp_path):
    make_photo("a.jpg", 1), make_photo("a_depth.png", 2), make_photo("conditioning/a.png", 3)
    inner = new_project(tmp_path / "photos" / "mug-lora", tmp_path / "photos" / "a.jpg")
    lorakit.scan(inner)
    make_photo("mug-lora/dataset/a.png", 4)
    records, lines = scan()
    assert set(records) == {"a.jpg"}
    assert any("2 control pictures" in line for line in lines) and any("1 lorakit project: mug-lora" in line for line in lines)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["10_toy", "3_other toy"], [10, 3]),
        (["10_friends", "holiday"], [1, 1]),
        (["2023_06_summer", "2024_01_winter"], [1, 1]),
        (["100_FUJI", "101_FUJI"], [1, 1]),
        (["100_FUJI"], [1]),
        (["20240101_trip"], [1]),
        (["12_25_party"], [1]),
        (["05_may", "06_june"], [1, 1]),
        (["9999999999_x"], [1]),
        (["img/10_toy", "reg/1_toy"], [10]),
    ],
)
def test_repeats_only_where_the_folder_is_kohyas(make_photo, scan, folders, expected):
    for number, folder in enumerate(folders):
        make_photo(f"{folder}/p{number}.jpg", number)
    records, lines = scan()
    assert [r["repeats"] for r in records.values()] == [1] * len(expected)
    by_hand, told = scan(**{"select.everything": True})
    assert sorted((r["repeats"] for r in by_hand.values()), reverse=True) == expected
    assert any("kohya's folder names" in line for line in told) == (max(expected) > 1)
    assert any("folders are named as kohya's" in line for line in lines) == (max(expected) > 1)
    assert all(r["repeats"] == 1 for r in scan(**{"select.everything": True, "scan.repeats": False})[0].values())


def test_descriptions_inside_are_offered_and_taken_where_asked(make_photo, scan):
    exif = Image.Exif()
    exif[0x010E] = "a felt bear on a bench"
    make_photo("exif.jpg", 1, exif=exif)
    camera = Image.Exif()
    camera[0x010E] = "OLYMPUS DIGITAL CAMERA         "
    make_photo("camera.jpg", 2, exif=camera)
    png = PngInfo()
    png.add_itxt(
        "XML:com.adobe.xmp",
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt><rdf:li xml:lang="x-default">a cup &amp; a bear</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>",
    )
    make_photo("xmp.png", 3, pnginfo=png)
    records, lines = scan()
    assert not texts(records) and any("2 photos with a description inside" in line for line in lines)
    assert texts(scan(**{"caption.embedded": True})[0]) == {"exif.jpg": "a felt bear on a bench", "xmp.png": "a cup & a bear"}
