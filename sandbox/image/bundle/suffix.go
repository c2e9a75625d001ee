package bundle

// suffixArray returns the start of every suffix of text in the order of the suffixes, by induced sorting: linear in time, and about
// ten times the text in memory. Texts of 2^31 bytes and more are the caller's to refuse.
func suffixArray(text []byte) []int32 {
	sa := make([]int32, len(text))
	sortSuffixes(text, sa, 256)
	return sa
}

// sortSuffixes fills sa for a text of letters below k. A suffix is small when it is less than the one that starts a letter later; a
// seam is a small suffix after a large one. Once the seams are in order, one pass to the right puts the large suffixes in theirs,
// and one to the left the small ones.
func sortSuffixes[T byte | int32](text []T, sa []int32, k int) {
	n := len(text)
	if n == 0 {
		return
	}
	small := make([]bool, n) // the last suffix is large: what follows it is the end, which is less than any letter
	for i := n - 2; i >= 0; i-- {
		small[i] = text[i] < text[i+1] || (text[i] == text[i+1] && small[i+1])
	}
	seam := func(i int32) bool { return i > 0 && small[i] && !small[i-1] }
	var seams []int32
	for i := int32(1); i < int32(n); i++ {
		if seam(i) {
			seams = append(seams, i)
		}
	}
	d := inducer[T]{text: text, sa: sa, small: small, count: make([]int32, k), at: make([]int32, k)}
	for _, c := range text {
		d.count[c]++
	}
	d.induce(seams) // in order by the stretch up to the next seam
	if len(seams) < 2 {
		return
	}
	rankSeams(text, sa, seams, seam)
	d.induce(seams)
}

// rankSeams puts seams in the order of their whole suffixes. sa has them in the order of their stretches.
func rankSeams[T byte | int32](text []T, sa, seams []int32, seam func(int32) bool) {
	n := int32(len(text))
	number := make([]int32, n/2+1) // of a seam's place in the text: two seams never touch
	for i, at := range seams {
		number[at/2] = int32(i)
	}
	end := func(i int) int32 { // of the stretch that starts at seam i, which the next seam's first letter belongs to
		if i+1 < len(seams) {
			return seams[i+1] + 1
		}
		return n
	}
	names := make([]int32, len(seams)) // by place in the text; equal stretches have one name
	name, last := int32(-1), -1
	for _, at := range sa {
		if !seam(at) {
			continue
		}
		i := int(number[at/2])
		if last < 0 || !sameStretch(text, seams[last], end(last), at, end(i), n) {
			name++
		}
		names[i] = name
		last = i
	}
	order := make([]int32, len(seams))
	if int(name)+1 == len(seams) {
		for i, v := range names {
			order[v] = int32(i)
		}
	} else {
		sortSuffixes(names, order, int(name)+1)
	}
	places := make([]int32, len(seams))
	copy(places, seams)
	for i, v := range order {
		seams[i] = places[v]
	}
}

// sameStretch compares two stretches. One that ends with the text is like no other.
func sameStretch[T byte | int32](text []T, a, aEnd, b, bEnd, n int32) bool {
	if aEnd-a != bEnd-b || aEnd == n || bEnd == n {
		return false
	}
	for i := range aEnd - a {
		if text[a+i] != text[b+i] {
			return false
		}
	}
	return true
}

// inducer sorts all suffixes from the order of the seams.
type inducer[T byte | int32] struct {
	text      []T
	sa        []int32
	small     []bool
	count, at []int32 // by letter: suffixes, and where the next one goes
}

const noSuffix = -1

func (d *inducer[T]) induce(seams []int32) {
	for i := range d.sa {
		d.sa[i] = noSuffix
	}
	d.ends()
	for i := len(seams) - 1; i >= 0; i-- {
		d.putLast(seams[i])
	}
	d.starts()
	d.putFirst(int32(len(d.text) - 1))
	for i := range d.sa {
		if j := d.sa[i]; j > 0 && !d.small[j-1] {
			d.putFirst(j - 1)
		}
	}
	d.ends()
	for i := len(d.sa) - 1; i >= 0; i-- {
		if j := d.sa[i]; j > 0 && d.small[j-1] {
			d.putLast(j - 1)
		}
	}
}

func (d *inducer[T]) putFirst(suffix int32) {
	c := d.text[suffix]
	d.sa[d.at[c]] = suffix
	d.at[c]++
}

func (d *inducer[T]) putLast(suffix int32) {
	c := d.text[suffix]
	d.at[c]--
	d.sa[d.at[c]] = suffix
}

func (d *inducer[T]) starts() {
	var sum int32
	for c, n := range d.count {
		d.at[c] = sum
		sum += n
	}
}

func (d *inducer[T]) ends() {
	var sum int32
	for c, n := range d.count {
		sum += n
		d.at[c] = sum
	}
}
