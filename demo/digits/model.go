package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	pixels  = 64
	classes = 10
)

// model is a softmax regression: for each digit a bias and a weight for each pixel.
type model struct {
	bias    [classes]float64
	weights [classes][pixels]float64
}

// parseModel reads what train.py wrote. A file that was cut short is an error that says how much is missing.
func parseModel(text string) (*model, error) {
	var m model
	numbers := strings.Fields(text)
	if want := classes * (pixels + 1); len(numbers) != want {
		return nil, fmt.Errorf("%d of %d weights", len(numbers), want)
	}
	for i, number := range numbers {
		value, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return nil, fmt.Errorf("weight %d is %q, which is not a number", i+1, number)
		}
		class, column := i/(pixels+1), i%(pixels+1)
		if column == 0 {
			m.bias[class] = value
		} else {
			m.weights[class][column-1] = value
		}
	}
	return &m, nil
}

// predict gives the probability of each digit for an image of 64 grey values from 0 to 16.
func (m *model) predict(image []float64) [classes]float64 {
	var scores [classes]float64
	highest := math.Inf(-1)
	for class := range scores {
		scores[class] = m.bias[class]
		for i, grey := range image {
			scores[class] += m.weights[class][i] * grey / 16
		}
		highest = max(highest, scores[class])
	}
	sum := 0.0
	for class, score := range scores {
		scores[class] = math.Exp(score - highest)
		sum += scores[class]
	}
	for class := range scores {
		scores[class] /= sum
	}
	return scores
}

// likeliest gives the digit with the highest probability.
func likeliest(probabilities [classes]float64) int {
	best := 0
	for class, probability := range probabilities {
		if probability > probabilities[best] {
			best = class
		}
	}
	return best
}
